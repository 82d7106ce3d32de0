"""Callbacks that record a training, and show how far it is."""

from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from ome.distributed.collectives import is_rank_zero
from ome.files import write_csv
from ome.progress import Meter

LOG_EVERY: Final = 10
"""Steps between two reads of a scalar from the device; Lightning needs half a millisecond to log each."""

Outputs: TypeAlias = Any
"""What Lightning passes to callbacks after a step: a dictionary with `loss`."""


def is_read(trainer: Trainer) -> bool:
    """Whether the scalars of the current step are read.

    `History` reads them at every tenth step of an epoch, loggers at every tenth step of the training, and
    callbacks at the end of an epoch.
    """
    return (
        trainer.fit_loop.batch_idx % LOG_EVERY == 0
        or (trainer.global_step + 1) % LOG_EVERY == 0
        or trainer.is_last_batch
    )


class History(Callback):
    """Records logged scalars with their steps, in checkpoints too, and writes them when training ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[tuple[int, str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": [list(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resumes after the rows of the checkpoint."""
        self._rows = [(int(step), str(name), float(value)) for step, name, value in state_dict["rows"]]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Records the scalars every `LOG_EVERY` steps."""
        del outputs, batch
        rates = learning_rates(trainer.optimizers[0])
        if trainer.global_step % LOG_EVERY == 0 or trainer.is_last_batch:
            # For the loggers. Plain numbers would be copied to the device, with a synchronisation.
            pl_module.log_dict({name: torch.full((), rate) for name, rate in rates.items()})
        if batch_idx % LOG_EVERY == 0:
            self._record(trainer, "train/")
            self._rows += [(trainer.global_step, name, rate) for name, rate in rates.items()]

    def on_train_epoch_end(self, trainer: Trainer, *_: object) -> None:
        """Records the validation scores of the epoch; validation runs before this."""
        self._record(trainer, "validation/")

    def on_train_end(self, *_: object) -> None:
        """Writes the history as CSV with the columns step, name and value."""
        if is_rank_zero():
            write_csv(self._path, ("step", "name", "value"), self._rows)

    def _record(self, trainer: Trainer, prefix: str) -> None:
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

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._note = ""
        self._meter: Meter | None = None

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        """Opens the display at the step at which training starts or resumes."""
        if is_rank_zero():
            self._meter = Meter(self._title, self._total, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Outputs, batch: object, batch_idx: int
    ) -> None:
        """Counts the step; reads the loss from the device only every `LOG_EVERY` steps."""
        del trainer, pl_module, batch
        if self._meter is None:
            return
        if batch_idx % LOG_EVERY == 0:
            self._note = f"loss {float(outputs['loss']):.4f}"
        self._meter.advance(1, self._note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the display, also after an error."""
        del trainer, pl_module, stage
        if self._meter is not None:
            self._meter.close()
            self._meter = None
