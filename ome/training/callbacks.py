"""Callbacks of every training that seed its steps and stop it."""

import math
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from ome.distributed.collectives import any_rank, rank
from ome.distributed.signals import install_handlers, stop, stop_requested
from ome.errors import UserError
from ome.training.clipping import ClippedModule
from ome.training.recorders import LOG_EVERY, Outputs


class SeedEachStep(Callback):
    """Seeds torch at every step, so that a step does not depend on an interruption before it.

    Seeding once per epoch would not suffice: data loaders draw from the same generator when they start, and
    after an interruption they start at another step.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Derives the step's seed from the run's seed, the step and the process."""
        own, shared = (
            int(np.random.SeedSequence([self._seed, trainer.global_step, process]).generate_state(1)[0])
            for process in (rank(), 0)
        )
        # `torch.manual_seed` would also queue a call with a stack trace for devices that do not exist.
        torch.default_generator.manual_seed(own)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(own)
        if isinstance(pl_module, ClippedModule):
            pl_module.shared_seed = shared


class StopAtNan(Callback):
    """Ends the training with one line when the loss is nan, before a checkpoint is written.

    All processes stop at the same step, since they share gradients.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._total: torch.Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Outputs, batch: object, batch_idx: int
    ) -> None:
        """Accumulates on the device whether the loss was finite; reads it only every `LOG_EVERY` steps."""
        del pl_module, batch
        loss = outputs["loss"].detach()
        if self._total is None:
            self._total = torch.zeros_like(loss)
        self._total.add_(loss, alpha=0)  # 0 * loss is 0 if finite, else nan, in a single kernel
        if (batch_idx + 1) % LOG_EVERY == 0:
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, *_: object) -> None:
        """Checks before validation."""
        self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: object) -> None:
        """Checks the rest of the epoch; the checkpoint is written after this."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if any_rank(self._total is not None and math.isnan(self._total)):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise UserError(
                f"the loss of {self._title} became nan or infinite by step {trainer.global_step} "
                f"(learning rate {rate:.3g}): lower the learning rate, or set trainer.precision=32-true"
            )
        self._total = None


class LastCheckpoint(ModelCheckpoint):
    """The checkpoint of the last epoch: a type of its own, as a user's may have the same settings."""


class StopWhenAsked(Callback):
    """On SIGTERM or SIGINT writes a checkpoint and ends the training, in all processes at the same step.

    With several processes, each asks the others for a signal only every `LOG_EVERY` steps.

    Args:
        path: Path of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_start(self, *_: object) -> None:
        """Replaces Lightning's signal handlers, which would communicate with other processes."""
        install_handlers()

    def on_train_epoch_start(self, *_: object) -> None:
        """Stops after a signal; the previous epoch has written its checkpoint."""
        if any_rank(stop_requested()):
            stop()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Stops after a signal, except at an epoch's last step, which is followed by a checkpoint."""
        del pl_module, outputs, batch
        together = trainer.world_size > 1
        if (together and (batch_idx + 1) % LOG_EVERY) or batch_idx + 1 == trainer.num_training_batches:
            return
        if any_rank(stop_requested()):
            trainer.save_checkpoint(self._path)
            stop()
