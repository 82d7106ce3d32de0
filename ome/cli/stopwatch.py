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
from ome.distributed.signals import install_handlers
from ome.training.fit import fitted_precision, quieten

BUDGET: Final = 1.0
"""Seconds for which each unit of work is repeated after the warm-up."""
SLOW: Final = 3.0
"""Seconds after which a single repetition is enough: on a busy machine each one is slow."""
FEW: Final = 3
"""Least number of repetitions of quick work: one may be disturbed."""
MOST: Final = 20
"""Largest number of repetitions."""
LONG: Final = 10.0
"""Seconds above which work is estimated from a part of it: a step of a large network may take a minute."""
PART: Final = 2
"""Tiles of a part of a step: BatchNorm cannot be trained with one value of a channel."""


class Timed(NamedTuple):
    """How long a unit of work takes.

    Attributes:
        seconds: Seconds of one unit.
        number: Number of units that were timed; 0 if it was less than one.
    """

    seconds: float
    number: int


def repeated(
    work: Callable[[Any], object],
    units: Any,  # noqa: ANN401
    device: torch.device,
    *,
    side_by_side: bool = False,
) -> Timed:
    """Times a call that does several units of work: the median of its calls after a warm-up.

    Args:
        work: The call.
        units: What it is called with, a list or an array; for the warm-up with the first of them alone. If
            all of them would take longer than `LONG`, some are left out.
        device: Where it computes: the time includes what it started there.
        side_by_side: Whether the units are worked on at the same time, so that none is left out.
    """
    alone, times = partial(work, units[:1]), list[float]()
    # The first call may have compiled code: only a second one tells whether all of them take too long.
    too_long = _seconds(alone, device) * len(units) > LONG and len(units) > 1 and not side_by_side
    if too_long and (warm := _seconds(alone, device)) * len(units) > LONG:
        units = units[: max(1, int(LONG / warm))]
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

    def __init__(self, most: int) -> None:
        self._most = most
        self.ends: list[float] = []

    @property
    def warm(self) -> list[float]:
        """Seconds of each step but the first, which loads and compiles code for the others."""
        return [end - before for before, end in pairwise(self.ends)]

    def on_train_start(self, *_: object) -> None:
        """Replaces Lightning's signal handlers, with which SIGTERM would not end the command."""
        install_handlers()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Records the time."""
        _wait(pl_module.device)
        self.ends.append(time.perf_counter())
        trainer.should_stop = len(self.warm) == self._most or _suffices(self.warm)


def _load(data: Any) -> None:  # noqa: ANN401
    """Loads the augmentation, and what torch imports at its first optimiser step, before steps are timed."""
    data[0]
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.SGD([weight], lr=0.0).step()


def timed_steps(config: DictConfig, module: pl.LightningModule, data: Any, batch: int) -> Timed:  # noqa: ANN401
    """Times steps of a training as `fit` takes them, and writes nothing.

    Steps that take longer than `LONG` are estimated from steps of fewer tiles, at least `PART`.

    Args:
        config: The composed configuration.
        module: What is trained.
        data: Data set of the training, with at least a batch of items.
        batch: Items of a step.
    """
    quieten()
    precision, _ = fitted_precision(module, hardware(config))
    _load(data)
    tiles = batch
    if batch > PART:
        (part,) = _warm_steps(config, module, data, precision, batch=PART, most=1)
        tiles = min(batch, int(LONG * PART / part))  # a processor of many cores takes less for a tile of many
        if tiles < min(batch, 2 * PART):
            return Timed(part * batch / PART, 0)
    warm = _warm_steps(config, module, data, precision, batch=tiles, most=MOST)
    return Timed(median(warm) * batch / tiles, len(warm) if tiles == batch else 0)


def _warm_steps(
    config: DictConfig,
    module: pl.LightningModule,
    data: Any,  # noqa: ANN401
    precision: str,
    *,
    batch: int,
    most: int,
) -> list[float]:
    """Seconds of at most `most` steps of `batch` items, after the first step."""
    machine, clock = hardware(config), _Steps(most)
    tiles = TileDataModule(
        data,
        batch=batch,
        seed=config.seed,
        workers=machine.loader_processes(),
        steps=most + 1,
        steps_per_epoch=most + 1,
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
    trainer.fit(module, tiles)
    return clock.warm
