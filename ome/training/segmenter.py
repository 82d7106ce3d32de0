"""Training of the segmenter on masks with a weight per pixel."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ome.data.datasets import Batch
from ome.distributed.collectives import sum_over_processes, world_size
from ome.networks.auxiliary import AuxiliaryHead
from ome.networks.features import freeze_batchnorm
from ome.networks.segmenters import Segmenter, build_segmenter
from ome.scoring.confusion import count_pixels
from ome.scoring.scores import Scores
from ome.training.clipping import ClippedModule
from ome.training.optimizers import Optimization
from ome.training.pixel_losses import pixel_cross_entropy
from ome.training.segmenter_loss import SegmenterLoss, SegmenterLosses


class UncertaintyWeightedSegmenter(ClippedModule):
    """A segmenter that learns from masks with a certainty per pixel (OME, section 5).

    Validation is on a few fixed tiles with a reference, all of them on every process: mIoU, and the mean
    cross-entropy of their labelled pixels without weights.

    Args:
        network: Image (B, bands, H, W) to logits (B, C, H, W), with an `encoder`; or its description from a
            checkpoint (the arguments of `build_segmenter`).
        total_steps: Optimiser steps of the whole training, for the schedule.
        optimizer: Settings of the optimiser, possibly as a dict.
        loss: The loss, or its settings as a dict. Further terms of it are not saved in checkpoints.
        head_lr: Factor on the rate of everything but the encoder.
        auxiliary: A head on the encoder's third stage for training only, not part of `network`; True for a
            new `AuxiliaryHead`.
        freeze_batchnorm: Keep the statistics of the pretrained encoder's BatchNorm.
    """

    def __init__(
        self,
        network: nn.Module | Mapping[str, Any],
        *,
        total_steps: int,
        optimizer: Optimization | Mapping[str, Any] = Optimization(),  # noqa: B008 - frozen
        loss: SegmenterLoss | Mapping[str, Any] | None = None,
        head_lr: float = 1.0,
        auxiliary: nn.Module | bool | None = None,
        freeze_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(network, Mapping):
            network = build_segmenter(**network)
        if isinstance(optimizer, Mapping):
            optimizer = Optimization(**optimizer)
        if not isinstance(loss, SegmenterLoss):
            loss = SegmenterLoss(**(loss or {}))
        description = network.description if isinstance(network, Segmenter) else None
        if auxiliary is True and description is not None:
            channels: int = network.third_stage_channels  # type: ignore[assignment]
            auxiliary = AuxiliaryHead(channels, description["num_classes"])
        self.network = network
        self.auxiliary = auxiliary or None
        if description is not None and isinstance(self.auxiliary, AuxiliaryHead | None):
            # Only plain values, which can be loaded with weights_only.
            plain = {"network": description, "total_steps": total_steps, "optimizer": asdict(optimizer)}
            plain |= {"loss": loss.settings, "head_lr": head_lr, "auxiliary": self.auxiliary is not None}
            self.save_hyperparameters(plain | {"freeze_batchnorm": freeze_batchnorm}, logger=False)
        self._total_steps = total_steps
        self._optimizer = optimizer
        self._loss = loss
        self._head_lr = head_lr
        self._freeze_batchnorm = freeze_batchnorm
        self._confusion: Tensor | int = 0
        self._entropy: Tensor | float = 0.0
        self._freeze()  # by now: DDP waits for a gradient of all that is not frozen when it is built

    def _freeze(self) -> None:
        if self._freeze_batchnorm:
            freeze_batchnorm(self.network.encoder)  # type: ignore[arg-type]  # every segmenter has one

    def train(self, mode: bool = True) -> Self:
        """Sets the mode as `nn.Module.train` does; frozen BatchNorm stays in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    @property
    def compiled_part(self) -> nn.Module:
        """The network; with an auxiliary head the encoder, whose maps that head takes from a hook."""
        return self.network if self.auxiliary is None else self.network.get_submodule("encoder")

    def outputs(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C, H, W) of images (B, bands, H, W), and those of the auxiliary head if there is one."""
        if self.auxiliary is None:
            return self.network(image), None
        pair: tuple[Tensor, Tensor] = self.network.with_auxiliary(image, self.auxiliary)  # type: ignore[operator]
        return pair

    def training_step(self, batch: Batch) -> Tensor:
        """The weighted loss of one batch: `image`, `mask` (B, H, W) int64, `weight` (B, H, W) uint8."""
        logits, auxiliary = self.outputs(batch["image"])
        losses: SegmenterLosses = self._loss(logits, batch["mask"], batch["weight"], auxiliary)
        if self.logs:
            shown = {f"train/loss_{number}": term for number, term in enumerate(losses.further)}
            for name, term in (shown | {"train/loss": losses.total}).items():
                self.log(name, sum_over_processes(term) / world_size())
        return losses.total

    def validation_step(self, batch: Batch) -> None:
        """Updates the validation scores with `image` and `mask` (B, H, W)."""
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
        encoder: nn.Module = self.network.encoder  # type: ignore[assignment]  # every segmenter has one
        of_encoder, of_head = set(encoder.parameters()), set(self.parameters())
        settings, groups = self._optimizer, []
        for name, members, lr in (
            ("encoder", of_encoder, settings.lr),
            ("head", of_head - of_encoder, settings.lr * self._head_lr),
        ):
            # Frozen ones too, which take no step without a gradient: checkpoints always have them.
            chosen = [p for p in self.parameters() if p in members]
            groups.append({"name": name, "params": chosen, "lr": lr, "weight_decay": settings.weight_decay})
        return settings.configure(self, encoder, groups, self._total_steps)
