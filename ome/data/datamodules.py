"""The LightningDataModule of all datasets; what differs between datasets is in their YAML files."""

from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from ome.data.datasets import Batch, TileDataset
from ome.data.sampler import StreamSampler
from ome.data.tiles import Length, batches_of_one_size
from ome.errors import UserError

Loader = DataLoader[Batch]


class TileDataModule(LightningDataModule):
    """Feeds tiles to the trainer: the same stream of samples for every number of processes.

    Attributes:
        epochs: Number of epochs.
        steps_per_epoch: Optimiser steps in each of them.
        total_steps: Optimiser steps of the whole training.

    Args:
        train: Training samples.
        validation: Fixed, unaugmented samples, or None.
        batch: Samples in a step over all processes; a multiple of the number of processes.
        seed: Determines the order of the tiles.
        workers: Loader processes for each training process.
        steps: Total training steps, in epochs of at most `steps_per_epoch`; None if `epochs` is given.
        epochs: Passes over the tiles; None if `steps` is given.
        steps_per_epoch: Largest number of steps between two checkpoints if `steps` is given.
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
        self.total_steps = length.total_steps

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream of samples, for a checkpoint."""
        return {"steps": self.trainer.global_step if self.trainer is not None else self._steps_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resumes after the samples of the checkpoint, possibly within an epoch."""
        self._steps_done = int(state_dict["steps"])

    def train_dataloader(self) -> Loader:
        """Shuffled, augmented training samples of this process.

        Raises:
            UserError: The batch is not a multiple of the number of processes.
        """
        world_size = self.trainer.world_size if self.trainer is not None else 1
        rank = self.trainer.global_rank if self.trainer is not None else 0
        if self._batch % world_size:
            raise UserError(
                f"a batch of {self._batch} tiles cannot be split evenly among {world_size} processes: give a "
                f"multiple of {world_size} (stage.cam.batch, or segmenter.recipe.batch)"
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
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            drop_last=True,
        )

    def val_dataloader(self) -> Loader | list[Loader]:
        """The fixed validation samples, in order.

        A batch holds tiles of one size, with at most the pixels of a training batch: images may be large.
        """
        if self._validation is None:
            return []
        pixels = self._batch * self._train.pixels
        batches = batches_of_one_size(
            self._validation.tiles, lambda tile: min(self._batch, pixels // (tile.height * tile.width))
        )
        # A loader draws a seed when it starts; its own generator keeps training independent of validation.
        return DataLoader(
            self._validation,
            batch_sampler=batches,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,  # starting them takes longer than their work
            generator=torch.Generator().manual_seed(self._seed),
        )
