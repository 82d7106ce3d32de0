"""Errors of the published code, reproduced to measure their effect; all are off by default."""

from pathlib import Path
from typing import Any, Final

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn import functional as F

from ome.data.datasets import Batch
from ome.distributed.collectives import barrier, is_rank_zero
from ome.files import save_atomically
from ome.networks.pooling import pool_maps
from ome.networks.seam import SeamNetwork

HIGHEST: Final = "highest_loss.pt"


def broadcast_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Mean multilabel soft margin loss of every score (B, C) against every tag (B, C) of a batch, a scalar.

    The published validation compares scores (B, C) with tags (B, C, 1, 1), which broadcasts to (B, C, B, C).
    """
    pairs = (*tags.shape, *logits.shape)
    return F.multilabel_soft_margin_loss(logits.expand(pairs), tags[:, :, None, None].expand(pairs))


class KeepHighestValidationLoss(Callback):
    """Ends a classifier's training with the weights of the epoch whose validation loss was the highest.

    Args:
        folder: Folder for those weights until the training ends.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / HIGHEST
        self._highest = float("-inf")
        self._losses: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """The highest loss so far."""
        return {"highest": self._highest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resumes after the epoch of the checkpoint."""
        self._highest = state_dict["highest"]

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, *_: object
    ) -> None:
        """Computes the broadcast loss of a validation batch."""
        del trainer, outputs
        network: SeamNetwork = pl_module.get_submodule("network")  # type: ignore[assignment]
        pooled = pool_maps(network(batch["image"]).cam, network.pooling)
        self._losses.append(broadcast_loss(pooled, batch["tags"]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the weights if no epoch had a higher loss."""
        del trainer
        loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if loss > self._highest:
            self._highest = loss
            if is_rank_zero():
                state = pl_module.get_submodule("network").state_dict()
                save_atomically(self._path, lambda path: torch.save(state, path))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the saved weights; without validation the last ones stay."""
        del trainer
        barrier()
        if self._path.exists():
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            pl_module.get_submodule("network").load_state_dict(state)
        barrier()
        if is_rank_zero():
            self._path.unlink(missing_ok=True)
