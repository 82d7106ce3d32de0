"""Repeats a piece of work, or steps of a training, until its time is known."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, Final, NamedTuple

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from ome.config.objects import hardware
from ome.data.datamodules import TileDataModule
from ome.training.fit import fitted_precision, quieten

BUDGET: Final = 1.0
"""Seconds for which each unit of work is repeated after the warm-up."""
SLOW: Final = 3.0
"""Seconds after which a single repetition is enough: on a busy machine each one is slow."""
FEW: Final = 3
"""Least number of repetitions of quick work: one may be disturbed."""
MOST: Final = 20
"""Largest number of repetitions."""


class Timed(NamedTuple):
    """How long a unit of work takes.

    Attributes:
        seconds: Seconds of one unit.
        number: Number of units that were timed.
    """

    seconds: float
    number: int


def repeated(work: Callable[[Any], object], units: Any, device: torch.device) -> Timed:  # noqa: ANN401
    """Times a call that does several units of work: the median of its calls after a warm-up.

    Args:
        work: The call.
        units: What it is called with, a list or an array; for the warm-up with the first of them alone.
        device: Where it computes: the time includes what it started there.
    """
    _seconds(partial(work, units[:1]), device)
    times: list[float] = []
    while not _suffices(times):
        times.append(_seconds(partial(work, units), device))
    return Timed(median(times) / len(units), len(units) * len(times))


def _suffices(warm: Sequence[float]) -> bool:
    """Whether enough repetitions were timed."""
    spent = sum(warm)
    return len(warm) == MOST or (len(warm) >= FEW and spent > BUDGET) or spent > SLOW


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class _Steps(pl.Callback):
    """Records when steps end, and stops the training when enough were timed."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @property
    def warm(self) -> list[float]:
        """Seconds of each step but the first, which loads and compiles code for the others."""
        return [end - before for before, end in pairwise(self.ends)]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Records the time."""
        _wait(pl_module.device)
        self.ends.append(time.perf_counter())
        trainer.should_stop = _suffices(self.warm)


def _load(data: Any) -> None:  # noqa: ANN401
    """Loads the augmentation, and what torch imports at its first optimiser step, before steps are timed."""
    data[0]
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.SGD([weight], lr=0.0).step()


def timed_steps(config: DictConfig, module: pl.LightningModule, data: Any, batch: int) -> Timed:  # noqa: ANN401
    """Times steps of a training as `fit` takes them, and writes nothing.

    Args:
        config: The composed configuration.
        module: What is trained.
        data: Data set of the training, with at least a batch of items.
        batch: Items of a step.
    """
    machine, clock = hardware(config), _Steps()
    quieten()
    precision, _ = fitted_precision(module, machine)
    tiles = TileDataModule(
        data,
        batch=batch,
        seed=config.seed,
        workers=machine.loader_processes(),
        steps=MOST + 1,
        steps_per_epoch=MOST + 1,
    )
    trainer = pl.Trainer(
        accelerator=machine.accelerator,
        devices=[machine.device().index] if machine.uses_gpu else 1,
        precision=precision,  # type: ignore[arg-type]  # a string from the configuration
        max_epochs=1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    _load(data)
    trainer.fit(module, tiles)
    return Timed(median(clock.warm), len(clock.warm))
