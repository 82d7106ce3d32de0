"""Training of the SEAM classifier on image-level tags."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from ome.data.datasets import Batch
from ome.distributed.collectives import sum_over_processes, world_size
from ome.errors import UserError
from ome.networks.descriptions import classifier_from
from ome.networks.pooling import pool_maps
from ome.networks.seam import CamPair, SeamNetwork
from ome.scoring.confusion import count_pixels
from ome.scoring.multilabel import multilabel_scores
from ome.scoring.scores import Scores
from ome.training.clipping import ClippedModule
from ome.training.optimizers import Optimization
from ome.training.seam_losses import seam_loss

GRID: Final = 16
"""Sides of resized tiles are multiples of this many pixels."""

UNTRAINED_PCM: Final = (
    "nothing trains the pixel correlation module with classifier.ecr_weight=0 and "
    "classifier.min_pool_weight=0: set classifier.pcm=false as well"
)


class SeamClassifier(ClippedModule):
    """Two views of a tile, one network, and the loss that makes their CAMs agree (SEAM, CVPR 2020).

    Every term of the loss can be switched off. The second view is computed only for the terms that compare
    two. Min-pool and ECR train only the pixel correlation module, so they are off where the network has none.

    Validation is on a few fixed, unaugmented tiles, all of them on every process: multilabel average
    precision and F1 of the pooled CAM and, where batches have reference masks, the mIoU of the refined CAM
    among the tags.

    Args:
        network: The network to train, or its description from a checkpoint (see `ome.networks.descriptions`).
        names: The C class names.
        total_steps: Optimiser steps of the whole training, for the schedule.
        optimizer: Settings of the optimiser, possibly as a dict.
        er_weight: Weight of the equivariant regularisation; 0 switches it off.
        ecr_weight: Weight of the equivariant cross regularisation; 0 switches it off.
        min_pool_weight: Weight of min-pooling; 0 switches it off.
        clip: Largest norm of the gradient, if any. The terms that compare two views divide the map of a
            tagged class by its maximum: where that is close to 0, a single step may ruin the network.
        rescale: Smallest and largest factor by which all tiles of a batch are resized. Unlike a resize before
            a crop it shows every tile as a whole, so that its tags stay correct.

    Raises:
        UserError: The network has a pixel correlation module that no term trains.
    """

    def __init__(
        self,
        network: SeamNetwork | Mapping[str, Any],
        names: Sequence[str],
        *,
        total_steps: int,
        optimizer: Optimization | Mapping[str, Any] = Optimization(),  # noqa: B008 - frozen
        er_weight: float = 1.0,
        ecr_weight: float = 1.0,
        min_pool_weight: float = 1.0,
        clip: float | None = None,
        rescale: Sequence[float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        if isinstance(network, Mapping):
            network = classifier_from(network)
        if isinstance(optimizer, Mapping):
            optimizer = Optimization(**optimizer)
        if network.pcm and not ecr_weight and not min_pool_weight:
            raise UserError(UNTRAINED_PCM)
        self.network = network
        if (description := network.description) is not None:  # plain values, for weights_only
            weights = {"er_weight": er_weight, "ecr_weight": ecr_weight, "min_pool_weight": min_pool_weight}
            plain = {"network": description, "names": list(names), "optimizer": asdict(optimizer)}
            others = {"total_steps": total_steps, "clip": clip, "rescale": list(rescale)}
            self.save_hyperparameters(weights | plain | others, logger=False)
        self._total_steps = total_steps
        self._optimizer = optimizer
        self._er_weight = er_weight
        self._ecr_weight = ecr_weight if network.pcm else 0.0
        self._min_pool_weight = min_pool_weight if network.pcm else 0.0
        self._clip = clip
        self._rescale = tuple(rescale)
        self._names = tuple(names)
        # Every process validates every tile, so the matrices must not be summed over processes.
        self._confusion: Tensor | None = None
        self._predicted: list[tuple[Tensor, Tensor]] = []

    def outputs(self, image: Tensor) -> tuple[CamPair, CamPair | None]:
        """Maps of randomly resized images (B, bands, H, W), and those of their half size if it is used."""
        image = self._rescaled(image)
        first: CamPair = self.network(image)
        if not self._has_second_view:
            return first, None
        half = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=True)
        return first, self.network(half)

    @property
    def _has_second_view(self) -> bool:
        return bool(self._er_weight or self._ecr_weight)

    def sizes(self, image: Tensor) -> int:
        """The number of sizes that the resize may draw, with their halves where there is a second view."""
        height, width = image.shape[2:]
        low, high = self._rescale
        factors = [low * (high / low) ** (step / 4096) for step in range(4097)]
        resized = {(_side(factor, height), _side(factor, width)) for factor in factors}
        halves = {(high // 2, wide // 2) for high, wide in resized} if self._has_second_view else set()
        return len(resized | halves)

    def training_step(self, batch: Batch) -> Tensor:
        """The SEAM loss of one batch: `image` (B, bands, H, W), `tags` and possibly `learnt` (B, C)."""
        first, second = self.outputs(batch["image"])
        losses = seam_loss(
            first,
            second,
            batch["tags"],
            batch.get("learnt"),
            er_weight=self._er_weight,
            ecr_weight=self._ecr_weight,
            min_pool_weight=self._min_pool_weight,
            pooling=self.network.pooling,
        )
        if self.logs:
            means = sum_over_processes(torch.stack(losses)) / world_size()
            self.log_dict({f"train/{name}": mean for name, mean in zip(losses._fields, means, strict=True)})
        return losses.total

    def _rescaled(self, image: Tensor) -> Tensor:
        """Resizes the tiles of a batch by one random factor."""
        low, high = self._rescale
        if low == high == 1:
            return image
        drawn = torch.rand((), dtype=torch.float32)  # on the host: no synchronisation
        if self.shared_seed is not None:  # one size in all processes, else the others wait for the largest
            generator = torch.Generator().manual_seed(self.shared_seed)
            drawn = torch.rand((), dtype=torch.float32, generator=generator)
        factor = low * (high / low) ** float(drawn.numpy())
        # Few different sizes, because kernels are selected for each.
        size = [_side(factor, length) for length in image.shape[2:]]
        return F.interpolate(image, size, mode="bilinear", align_corners=False)

    def clip(self, value: float | None, algorithm: str | None) -> Tensor | None:
        """Clips to the module's largest norm, else by the trainer's settings, and logs the norm before."""
        if self._clip is not None:
            value, algorithm = self._clip, "norm"
        norm = super().clip(value, algorithm)
        if norm is not None and self.logs:
            self.log("train/gradient_norm", norm)
        return norm

    def validation_step(self, batch: Batch) -> None:
        """Updates the validation scores with `image`, `tags` and, where there is one, `mask` (B, H, W)."""
        tags = batch["tags"]
        cam, refined = self.network(batch["image"])
        self._predicted.append((pool_maps(cam, self.network.pooling), tags))
        if "mask" in batch:
            tagged = refined.masked_fill(tags[:, :, None, None] == 0, -torch.inf)
            counts = count_pixels(tagged.argmax(dim=1), batch["mask"], tagged.shape[1])
            self._confusion = counts if self._confusion is None else self._confusion + counts

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the whole validation set."""
        logits, tags = (torch.cat(parts) for parts in zip(*self._predicted, strict=True))
        scores = multilabel_scores(logits, tags)
        self.log("validation/average_precision", scores.mean_average_precision)
        self.log("validation/f1", scores.mean_f1)
        if self._confusion is not None:
            self.log("validation/cam_miou", Scores(self._confusion.cpu().numpy(), self._names).miou)
        self._predicted.clear()
        self._confusion = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """SGD with the lineage's four parameter groups, and polynomial decay at every step."""
        groups = self.network.parameter_groups(self._optimizer.lr, self._optimizer.weight_decay)
        return self._optimizer.configure(self.network, self.network.backbone, groups, self._total_steps)


def _side(factor: float, length: int) -> int:
    """A resized side in pixels."""
    return GRID * max(1, round(factor * length / GRID))
