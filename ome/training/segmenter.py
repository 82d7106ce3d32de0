"""Training of the segmenter on masks with a weight per pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ome.data.datasets import Batch
from ome.distributed.collectives import sum_over_processes, world_size
from ome.networks.auxiliary import AuxiliaryHead
from ome.networks.described import describe_segmenter, segmenter_from
from ome.networks.features import freeze_batchnorm
from ome.scoring.confusion import count_pixels
from ome.scoring.scores import Scores
from ome.training.clipping import ClippedModule
from ome.training.optimizers import (
    OptimizerName,
    build_optimizer,
    layer_scales,
    norm_parameters,
    scheduled,
)
from ome.training.pixel_losses import (
    LossTerm,
    PixelWeights,
    Weighting,
    hardest_pixels,
    overlap_loss,
    pixel_cross_entropy,
    weigh_pixels,
)
from ome.training.schedule import ScheduleName, rate_factor
from ome.training.underfitting import PretendedUnderfitting

_PLAIN = (
    "total_steps",
    "lr",
    "momentum",
    "weight_decay",
    "power",
    "minimum_lr",
    "optimizer",
    "schedule",
    "layer_decay",
    "warmup_steps",
    "head_lr",
    "norm_decay",
    "weighting",
    "class_weights",
    "label_smoothing",
    "ohem",
    "dice",
    "lovasz",
    "auxiliary_weight",
    "freeze_batchnorm",
)
"""Arguments of the module that are plain values, saved as hyperparameters."""


class UncertaintyWeightedSegmenter(ClippedModule):
    """Cross-entropy per pixel times the pixel's certainty, normalised over all processes (OME, section 5).

    Validation is on a few fixed tiles with a reference, all of them on every process: mIoU, and the mean
    cross-entropy of their labelled pixels without weights.

    Args:
        network: Image (B, bands, H, W) to logits (B, C, H, W), with an `encoder`; or its description from a
            checkpoint (see `ome.networks.described`).
        total_steps: Optimiser steps of the whole training, for the schedule.
        lr: Base learning rate, of the encoder.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of the optimiser.
        power: Exponent of the polynomial decay.
        minimum_lr: Limit of the decay.
        optimizer: `sgd` or `adamw`.
        schedule: Learning-rate schedule, see `rate_factor`.
        layer_decay: Factor on the rate from each layer of the encoder to the one below, see `layer_scales`.
        warmup_steps: Steps of the warm-up, see `linear_warmup`.
        head_lr: Factor on the rate of everything but the encoder.
        norm_decay: Whether the weight decay applies to normalisation layers too.
        weighting: Conversion of a pixel's weight of 0..255 to a loss weight, see `pixel_weights`.
        underfit: Change of the losses once their mean over all processes is low, possibly as a dict; by
            default none.
        class_weights: C factors, see `weigh_pixels`; None for 1.
        label_smoothing: See `pixel_cross_entropy`.
        ohem: Fraction of the pixels with positive weight that is kept, see `hardest_pixels`; None for all.
            The divisor then sums over the kept pixels.
        dice: Weight of the Dice loss, see `overlap_loss`, which is added to the mean cross-entropy. With
            several processes it is averaged over them.
        lovasz: Weight of the Lovasz-Softmax loss, added in the same way.
        losses: Weights and functions of further terms, added in the same way; not saved in checkpoints.
        auxiliary: A head on the encoder's third stage for training only, not part of `network`; True for a
            new `AuxiliaryHead`. Its cross-entropy has the same pixels, weights and divisor.
        auxiliary_weight: Weight of that loss.
        freeze_batchnorm: Keep the statistics of the pretrained encoder's BatchNorm.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module | Mapping[str, Any],
        *,
        total_steps: int,
        lr: float = 0.005,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        power: float = 0.9,
        minimum_lr: float = 1e-4,
        optimizer: OptimizerName = "sgd",
        schedule: ScheduleName = "poly",
        layer_decay: float = 1.0,
        warmup_steps: int = 0,
        head_lr: float = 1.0,
        norm_decay: bool = True,
        weighting: Weighting = "continuous",
        underfit: PretendedUnderfitting | Mapping[str, Any] | None = None,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ohem: float | None = None,
        dice: float = 0.0,
        lovasz: float = 0.0,
        losses: Sequence[tuple[float, LossTerm]] = (),
        auxiliary: nn.Module | bool | None = None,
        auxiliary_weight: float = 0.0,
        freeze_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        plain = {name: value for name, value in locals().items() if name in _PLAIN}
        if isinstance(network, Mapping):
            network = segmenter_from(network)
        if isinstance(underfit, Mapping):
            underfit = PretendedUnderfitting(**underfit)
        underfit = underfit or PretendedUnderfitting()
        description = describe_segmenter(network)
        if auxiliary is True and description is not None:
            channels: int = network.third_stage_channels  # type: ignore[assignment]
            auxiliary = AuxiliaryHead(channels, description["num_classes"])
        self.network = network
        self.auxiliary = auxiliary or None
        if description is not None and isinstance(self.auxiliary, AuxiliaryHead | None):
            # Only plain values, which can be loaded with weights_only.
            plain |= {"network": description, "auxiliary": self.auxiliary is not None}
            plain |= {"underfit": asdict(underfit)}
            self.save_hyperparameters(plain, logger=False)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self._total_steps = total_steps
        self._lr = lr
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._power = power
        self._minimum_lr = minimum_lr
        self._optimizer = optimizer
        self._schedule = schedule
        self._layer_decay = layer_decay
        self._warmup_steps = warmup_steps
        self._head_lr = head_lr
        self._norm_decay = norm_decay
        self._weighting = weighting
        self._underfit = underfit
        self._label_smoothing = label_smoothing
        self._ohem = ohem
        self._dice = dice
        self._lovasz = lovasz
        self._losses = tuple(losses)
        self._auxiliary_weight = auxiliary_weight
        self._freeze_batchnorm = freeze_batchnorm
        self._confusion: Tensor | int = 0
        self._entropy: Tensor | float = 0.0

    def on_train_start(self) -> None:
        """Freezes the encoder's BatchNorm if configured."""
        if self._freeze_batchnorm:
            freeze_batchnorm(self.network.encoder)  # type: ignore[arg-type]  # every segmenter has one

    def on_train_epoch_start(self) -> None:
        """Freezes it again, since `train()` undoes that after a validation."""
        self.on_train_start()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted loss of one batch: `image`, `mask` (B, H, W) int64, `weight` (B, H, W) uint8."""
        del batch_idx
        image, mask, weight = batch["image"], batch["mask"], batch["weight"]
        pixels = weigh_pixels(mask, weight, self._weighting, self.class_weights)
        auxiliary = None
        if self.auxiliary is None:
            logits = self.network(image)
        else:
            logits, auxiliary = self.network.with_auxiliary(image, self.auxiliary)  # type: ignore[operator]
        entropy = pixel_cross_entropy(logits, mask, self._label_smoothing)
        if self._ohem is not None:
            hardest = hardest_pixels(entropy * pixels.factor, pixels.factor > 0, self._ohem)
            pixels = PixelWeights(pixels.factor * hardest, pixels.normaliser * hardest)
        losses = entropy * pixels.factor
        normaliser, total = sum_over_processes(torch.stack([pixels.normaliser.sum(), losses.sum()]).float())
        divisor = normaliser.clamp_min(1.0)
        loss_sum = self._underfit(losses, total / divisor).sum()
        if auxiliary is not None:
            entropy = pixel_cross_entropy(auxiliary, mask, self._label_smoothing)
            loss_sum = loss_sum + self._auxiliary_weight * (entropy * pixels.factor).sum()
        # DDP averages gradients over the processes; the factor world_size turns that mean into a sum.
        loss: Tensor = loss_sum * world_size() / divisor
        if self._dice or self._lovasz:
            loss = loss + overlap_loss(logits, mask, pixels.factor, dice=self._dice, lovasz=self._lovasz)
        for number, (scale, term) in enumerate(self._losses):
            further = scale * term(logits, mask, pixels.factor)
            if self.logs:
                self.log(f"train/loss_{number}", sum_over_processes(further) / world_size())
            loss = loss + further
        if self.logs:
            self.log("train/loss", sum_over_processes(loss) / world_size())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Updates the validation scores with `image` and `mask` (B, H, W)."""
        del batch_idx
        logits, mask = self.network(batch["image"]), batch["mask"]
        self._confusion = self._confusion + count_pixels(logits.argmax(dim=1), mask, logits.shape[1])
        self._entropy = self._entropy + pixel_cross_entropy(logits, mask).sum(dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the whole validation set, if any pixel has a label."""
        matrix = np.asarray(torch.as_tensor(self._confusion).cpu())
        if pixels := int(matrix.sum()):
            names = tuple(str(number) for number in range(len(matrix)))
            self.log("validation/miou", Scores(matrix, names).miou)
            self.log("validation/loss", float(self._entropy) / pixels)
        self._confusion, self._entropy = 0, 0.0

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The configured optimiser and schedule; the rate changes at every step."""
        groups = self._parameter_groups()
        optimizer = build_optimizer(self._optimizer, groups, self._lr, self._momentum)
        factor = partial(
            rate_factor,
            self._schedule,
            total_steps=self._total_steps,
            power=self._power,
            warmup=self._warmup_steps,
        )
        return scheduled(
            optimizer, [partial(factor, floor=self._minimum_lr / group["lr"]) for group in groups]
        )

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """The trainable parameters, grouped by learning rate and weight decay."""
        encoder: nn.Module = self.network.encoder  # type: ignore[assignment]  # every segmenter has one
        scales = dict.fromkeys(map(id, encoder.parameters()), 1.0)
        if self._layer_decay != 1:
            scales = layer_scales(encoder, self._layer_decay)
        norms = set() if self._norm_decay else norm_parameters(self)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                lr = self._lr * scales.get(id(parameter), self._head_lr)
                decay = 0.0 if id(parameter) in norms else self._weight_decay
                groups.setdefault((lr, decay), []).append(parameter)
        return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]
