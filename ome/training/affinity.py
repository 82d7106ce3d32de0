"""Training of AffinityNet, which learns from uncertain labels whether neighbouring cells share a class."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from ome.data.datasets import Batch
from ome.distributed.collectives import sum_over_processes, world_size
from ome.networks.affinity import GRID_STRIDE, AffinityNetwork, pair_affinity, pair_indices
from ome.networks.descriptions import affinity_from
from ome.training.affinity_loss import affinity_loss, grid_labels
from ome.training.clipping import ClippedModule
from ome.training.optimizers import Optimization


class AffinityLearner(ClippedModule):
    """Trains AffinityNet on pairs of neighbouring cells (Ahn & Kwak, CVPR 2018, section 3.2).

    Args:
        network: The network to train, or its description from a checkpoint (see `ome.networks.descriptions`).
        num_classes: Number of classes C.
        total_steps: Optimiser steps of the whole training, for the schedule.
        radius: Largest distance of a pair, in cells.
        optimizer: Settings of the optimiser, possibly as a dict.
    """

    def __init__(
        self,
        network: AffinityNetwork | Mapping[str, Any],
        num_classes: int,
        *,
        total_steps: int,
        radius: int = 5,
        optimizer: Optimization | Mapping[str, Any] = Optimization(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        if isinstance(network, Mapping):
            network = affinity_from(network)
        if isinstance(optimizer, Mapping):
            optimizer = Optimization(**optimizer)
        if (description := network.description) is not None:  # plain values, for weights_only
            settings: dict[str, Any] = {"num_classes": num_classes, "total_steps": total_steps}
            settings |= {"network": description, "radius": radius, "optimizer": asdict(optimizer)}
            self.save_hyperparameters(settings, logger=False)
        self.network = network
        self._num_classes = num_classes
        self._total_steps = total_steps
        self._radius = radius
        self._optimizer = optimizer

    def training_step(self, batch: Batch) -> Tensor:
        """The affinity loss of one batch: `image` (B, bands, H, W) and `mask` (B, H, W) int64."""
        features = self.outputs(batch["image"]).float()  # bfloat16 is too coarse for their differences
        pairs = _pairs_on(features.shape[2:], self._radius, features.device)
        labels = grid_labels(batch["mask"], self._num_classes, GRID_STRIDE)
        losses = affinity_loss(pair_affinity(features, self._radius), labels, pairs)
        # DDP averages gradients over the processes: a pair must have the same weight on each.
        loss = losses.mean(sum_over_processes(losses.pairs) / world_size())
        if self.logs:
            self.log("train/loss", sum_over_processes(loss) / world_size())
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """SGD with the lineage's four parameter groups, and polynomial decay at every step."""
        groups = self.network.parameter_groups(self._optimizer.lr, self._optimizer.weight_decay)
        return self._optimizer.configure(self.network, self.network.backbone, groups, self._total_steps)


@lru_cache(maxsize=4)
def _pairs_on(size: torch.Size, radius: int, device: torch.device) -> Tensor:
    """`pair_indices` on a device; computed for each size once, and not copied to the device at every step."""
    return pair_indices(size, radius).to(device)
