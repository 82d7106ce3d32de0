"""Callbacks of every training: progress, history, seeding of each step, and stopping."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from ome.distributed.collectives import any_rank, is_rank_zero, rank
from ome.distributed.signals import install_handlers, stop, stop_requested
from ome.errors import UserError
from ome.files import write_csv
from ome.progress import Meter


class SeedEachStep(Callback):
    """Seeds torch at every step, so that a step does not depend on an interruption before it.

    Seeding once per epoch would not suffice: data loaders draw from the same generator when they start, and
    after an interruption they start at another step.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,  # noqa: ANN401 - fixed by Lightning
        batch_idx: int,
    ) -> None:
        """Derives the step's seed from the run's seed, the step and the process."""
        del batch, batch_idx
        state = np.random.SeedSequence([self._seed, trainer.global_step, rank()]).generate_state(1)
        # `torch.manual_seed` would also queue a call with a stack trace for devices that do not exist.
        torch.default_generator.manual_seed(int(state[0]))
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(int(state[0]))


class StopAtNan(Callback):
    """Ends the training with one line when the loss is nan, before a checkpoint is written.

    All processes stop at the same step, since they share gradients.
    """

    def __init__(self, title: str, every: int) -> None:
        self._title = title
        self._every = every
        self._total: torch.Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401 - fixed by Lightning
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Accumulates on the device whether the loss was finite; reads it only at every `every`-th step."""
        del pl_module, batch
        loss = outputs["loss"].detach()
        if self._total is None:
            self._total = torch.zeros_like(loss)
        self._total.add_(loss, alpha=0)  # 0 * loss is 0 if finite, else nan, in a single kernel
        if (batch_idx + 1) % self._every == 0:
            self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks before validation."""
        del pl_module
        self._check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks the rest of the epoch; the checkpoint is written after this."""
        del pl_module
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        if any_rank(self._total is not None and math.isnan(self._total)):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise UserError(
                f"the loss of {self._title} became nan or infinite by step {trainer.global_step} "
                f"(learning rate {rate:.3g}): lower the learning rate, or set trainer.precision=32-true"
            )
        self._total = None


class StopWhenAsked(Callback):
    """On SIGTERM or SIGINT writes a checkpoint and ends the training, in all processes at the same step.

    Args:
        path: Path of the checkpoint.
        every: Steps between two checks of whether another process got a signal.
    """

    def __init__(self, path: Path, every: int) -> None:
        self._path = path
        self._every = every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replaces Lightning's signal handlers, which would communicate with other processes."""
        del trainer, pl_module
        install_handlers()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops after a signal; the previous epoch has written its checkpoint."""
        del trainer, pl_module
        if any_rank(stop_requested()):
            stop()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401 - fixed by Lightning
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Stops after a signal, except at an epoch's last step, which is followed by a checkpoint."""
        del pl_module, outputs, batch
        together = trainer.world_size > 1
        if (together and (batch_idx + 1) % self._every) or batch_idx + 1 == trainer.num_training_batches:
            return
        if any_rank(stop_requested()):
            trainer.save_checkpoint(self._path)
            stop()


class History(Callback):
    """Records logged scalars with their steps, in checkpoints too, and writes them when training ends."""

    def __init__(self, path: Path, every: int) -> None:
        self._path = path
        self._every = every
        self._rows: list[tuple[int, str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": [list(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resumes after the rows of the checkpoint."""
        self._rows = [(int(step), str(name), float(value)) for step, name, value in state_dict["rows"]]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401 - fixed by Lightning
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Records the scalars of every `every`-th step."""
        del outputs, batch
        rates = learning_rates(trainer.optimizers[0])
        if trainer.global_step % self._every == 0 or trainer.is_last_batch:
            # For the loggers. Plain numbers would be copied to the device, with a synchronisation.
            pl_module.log_dict({name: torch.full((), rate) for name, rate in rates.items()})
        if batch_idx % self._every == 0:
            self._record(trainer, "train/")
            self._rows += [(trainer.global_step, name, rate) for name, rate in rates.items()]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Records the validation scores of the epoch; validation runs before this."""
        del pl_module
        self._record(trainer, "validation/")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the history as CSV with the columns step, name and value."""
        del trainer, pl_module
        if is_rank_zero():
            write_csv(self._path, ("step", "name", "value"), self._rows)

    def _record(self, trainer: pl.Trainer, prefix: str) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefix):
                self._rows.append((trainer.global_step, name, float(value)))


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """An optimiser's distinct learning rates: `learning_rate`, `learning_rate_2` and so on."""
    now = {group.get("initial_lr", group["lr"]): float(group["lr"]) for group in optimizer.param_groups}
    names = ["learning_rate", *(f"learning_rate_{number}" for number in range(2, len(now) + 1))]
    return dict(zip(names, now.values(), strict=True))


class TrainingMeter(Callback):
    """The progress display of a training: steps, rate, time left and the latest loss."""

    def __init__(self, title: str, total: int, every: int) -> None:
        self._title = title
        self._total = total
        self._every = every
        self._note = ""
        self._meter: Meter | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the display at the step at which training starts or resumes."""
        del pl_module
        if is_rank_zero():
            self._meter = Meter(self._title, self._total, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401 - fixed by Lightning
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Counts the step; reads the loss from the device only at every `every`-th step."""
        del trainer, pl_module, batch
        if self._meter is None:
            return
        if batch_idx % self._every == 0:
            self._note = f"loss {float(outputs['loss']):.4f}"
        self._meter.advance(1, self._note)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Closes the display, also after an error."""
        del trainer, pl_module, stage
        if self._meter is not None:
            self._meter.close()
            self._meter = None
