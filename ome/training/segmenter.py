"""Training of the segmenter on masks that are more certain in some pixels than in others."""

from typing import Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ome.networks.features import freeze_batchnorm
from ome.training.losses import Weighting, pixel_cross_entropy, pixel_weights
from ome.training.schedule import poly_lr
from ome.training.underfitting import PretendedUnderfitting

OptimizerName = Literal["sgd", "adamw"]


class UncertaintyWeightedSegmenter(pl.LightningModule):
    """Cross-entropy per pixel times the pixel's certainty, normalised over all processes (OME, section 5).

    Args:
        network: Image (B, bands, H, W) to logits (B, C, H, W).
        total_steps: Optimiser steps of the whole training, for the schedule.
        lr: Base learning rate.
        momentum: Of SGD.
        weight_decay: Of the optimiser.
        power: Of the polynomial decay.
        minimum_lr: Where the decay ends.
        optimizer: `sgd` or `adamw`.
        weighting: How a pixel's weight of 0..255 enters the loss; see `pixel_weights`.
        underfit: What becomes of the losses once their mean over all processes is low; by default nothing.
        freeze_batchnorm: Keep the statistics of the pretrained encoder's and the decoder's BatchNorm.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        total_steps: int,
        lr: float = 0.005,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        power: float = 0.9,
        minimum_lr: float = 1e-4,
        optimizer: OptimizerName = "sgd",
        weighting: Weighting = "continuous",
        underfit: PretendedUnderfitting | None = None,
        freeze_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self._total_steps = total_steps
        self._lr = lr
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._power = power
        self._minimum_lr = minimum_lr
        self._optimizer = optimizer
        self._weighting = weighting
        self._underfit = underfit or PretendedUnderfitting()
        self._freeze_batchnorm = freeze_batchnorm

    def on_train_start(self) -> None:
        """Fixes the encoder's BatchNorm where it is to stay as pretrained."""
        if self._freeze_batchnorm:
            freeze_batchnorm(self.network.encoder)  # type: ignore[arg-type]  # every segmenter has one

    def on_train_epoch_start(self) -> None:
        """Repeats what `train()` undid after a validation."""
        self.on_train_start()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The weighted loss of one batch: images, masks (B, H, W) int64, weights (B, H, W) uint8."""
        del batch_idx
        image, mask, weight = batch
        weighted = pixel_cross_entropy(self.network(image), mask, pixel_weights(weight, self._weighting))
        # URN's thresholded weights go with the mean over all pixels, the others with the weighted mean.
        divisor = weighted.pixels if self._weighting == "threshold" else weighted.weight_sum
        sums = torch.stack([divisor, weighted.loss_sum]).detach().float()
        processes = self.trainer.world_size
        if processes > 1:
            torch.distributed.all_reduce(sums)
        divisor = sums[0].clamp_min(1.0)
        losses = self._underfit(weighted.losses, mean=sums[1] / divisor)
        # DDP averages gradients over the processes; the factor turns that mean into the sum it has to be.
        loss = losses.sum() * processes / divisor
        self.log("train/loss", loss.detach())
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The chosen optimiser with polynomial decay to the minimum at every step."""
        trainable = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer: torch.optim.Optimizer
        if self._optimizer == "adamw":
            optimizer = torch.optim.AdamW(trainable, lr=self._lr, weight_decay=self._weight_decay)
        else:
            optimizer = torch.optim.SGD(
                trainable, lr=self._lr, momentum=self._momentum, weight_decay=self._weight_decay
            )
        floor = self._minimum_lr / self._lr
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: poly_lr(1.0, step, self._total_steps, self._power, floor)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
