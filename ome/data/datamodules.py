"""One LightningDataModule for every dataset: what differs between datasets is facts, and facts are YAML."""

from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from ome.data.datasets import Batch, StreamSampler, TileDataset
from ome.data.tiles import Length, batches_of_one_size
from ome.errors import UserError

Loader = DataLoader[Batch]


class TileDataModule(LightningDataModule):
    """Feeds tiles to the trainer: the same stream of samples for every number of processes.

    Args:
        train: Training samples.
        validation: Fixed, unaugmented samples, or None.
        batch: Samples in a step over all processes together; their number must divide it.
        seed: Decides the order of the tiles.
        workers: Loader processes for each training process.
        steps: Training steps in all; an epoch then is as long as `steps_per_epoch` says. None with `epochs`.
        epochs: Passes over the tiles. None with `steps`.
        steps_per_epoch: Longest distance between two checkpoints when counting by steps.
    """

    def __init__(
        self,
        train: TileDataset,
        validation: TileDataset | None = None,
        *,
        batch: int,
        seed: int,
        workers: int = 0,
        steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int = 500,
    ) -> None:
        super().__init__()
        if (steps is None) == (epochs is None):
            raise ValueError("give either steps or epochs")
        self._train = train
        self._validation = validation
        self._batch = batch
        self._seed = seed
        self._workers = workers
        self._steps_done = 0
        if epochs is not None:
            length = Length.of_epochs(epochs, len(train), batch)
        else:
            length = Length.of_steps(int(steps or 0), steps_per_epoch)
        self.epochs, self.steps_per_epoch = length

    def state_dict(self) -> dict[str, Any]:
        """How far the stream was read, for a checkpoint."""
        return {"steps": self.trainer.global_step if self.trainer is not None else self._steps_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the samples of the checkpoint, which may lie within an epoch."""
        self._steps_done = int(state_dict["steps"])

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    def train_dataloader(self) -> Loader:
        """Shuffled, augmented training samples of this process.

        Raises:
            UserError: A batch cannot be shared fairly.
        """
        world_size = self.trainer.world_size if self.trainer is not None else 1
        rank = self.trainer.global_rank if self.trainer is not None else 0
        if self._batch % world_size:
            raise UserError(
                f"a batch of {self._batch} tiles cannot be shared by {world_size} processes: give a multiple "
                f"of {world_size} (stage.cam.batch, or segmenter.recipe.batch)"
            )
        samples = self.steps_per_epoch * self._batch
        sampler = StreamSampler(
            len(self._train), samples, self._seed, rank, world_size, self._steps_done * self._batch
        )
        return DataLoader(
            self._train,
            batch_size=self._batch // world_size,
            sampler=sampler,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=torch.cuda.is_available(),
            drop_last=True,
        )

    def val_dataloader(self) -> Loader | list[Loader]:
        """The fixed validation samples, in order; a batch holds tiles of one size."""
        if self._validation is None:
            return []
        batches = batches_of_one_size(self._validation.tiles, lambda _: self._batch)
        # A loader draws a seed when it starts; of its own, so that training draws the same without it.
        return DataLoader(
            self._validation,
            batch_sampler=batches,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,  # started anew they would take longer than they work
            generator=torch.Generator().manual_seed(self._seed),
        )
