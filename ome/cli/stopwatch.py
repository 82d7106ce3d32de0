"""Repeats a piece of work, or steps of a training, until its time is known."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from ome.cli.timed_parts import Part, Timed, extrapolated
from ome.config.objects import hardware
from ome.data.datamodules import TileDataModule
from ome.distributed.signals import install_handlers
from ome.training.fit import fitted_precision, quieten

BUDGET: Final = 1.0
"""Seconds for which each unit of work is repeated after the warm-up, if its limit is no less."""
FEW: Final = 3
"""Least number of repetitions of quick work: one may be disturbed."""
PAIR: Final = 2
"""Least tiles of a step: BatchNorm cannot be trained with one value of a channel."""
STEP: Final = 6.0
"""Forward passes that a step takes about as long as, per item: forth and back, of two views."""


def repeated(
    work: Callable[[Any], object],
    units: Callable[[Part], Any],
    whole: Part,
    device: torch.device,
    limit: float,
    *,
    side_by_side: bool = False,
) -> Timed:
    """Times a call that does several units of work: the median of its calls after a warm-up.

    Args:
        work: The call.
        units: Returns what it is called with.
        whole: The units. If they take longer than half of the limit, the time of a part is extrapolated.
        device: Where it computes: the time includes what it started there.
        limit: Seconds for all calls; the smallest part is timed whatever it takes.
        side_by_side: Whether the units are worked on at the same time, so that none is left out.
    """

    def measured(part: Part, most: int) -> list[float]:
        timed, times = partial(work, units(part)), list[float]()
        if not warm:
            warm.append(_seconds(timed, device))  # the first call may compile code
        while not _suffices(times, most, limit):
            times.append(_seconds(timed, device))
        return times

    warm: list[float] = []
    return extrapolated(measured, whole, whole.tiles if side_by_side else 1, limit)


def _suffices(warm: Sequence[float], most: int, limit: float) -> bool:
    """Whether enough repetitions were timed."""
    spent = sum(warm)
    return len(warm) == most or (len(warm) >= FEW and spent > BUDGET) or (spent > limit / 2 and bool(warm))


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

    def __init__(self, most: int, limit: float) -> None:
        self._most = most
        self._limit = limit
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
        trainer.should_stop = _suffices(self.warm, self._most, self._limit)


def _load(data: Any) -> None:  # noqa: ANN401
    """Loads the augmentation, and what torch imports at its first optimiser step, before steps are timed."""
    data[0]
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.SGD([weight], lr=0.0).step()


def timed_steps(
    config: DictConfig,
    module: pl.LightningModule,
    data: Callable[[Part], Any],
    whole: Part,
    limit: float,
    forward: float,
) -> Timed:
    """Times steps of a training as `fit` takes them, and writes nothing.

    Args:
        config: The composed configuration.
        module: What is trained.
        data: Returns the data set of the training, whose items have the size of the part.
        whole: The items of a step. If it takes too long, the time of a part of it is extrapolated.
        limit: Seconds for all steps; the smallest part is timed whatever it takes.
        forward: Seconds of the network for an item, from which the size of the smallest part follows.
    """
    quieten()
    precision, _ = fitted_precision(module, hardware(config))
    _load(data(whole.within(0, PAIR)))

    def measured(part: Part, most: int) -> list[float]:
        return _warm_steps(
            config, module, data(part), precision, batch=part.tiles, most=most, limit=limit / 2
        )

    start = limit / 3 / max(STEP * forward, 1e-9) * whole.pixels / whole.tiles
    timed = extrapolated(measured, whole, PAIR, limit, start)
    return Timed(timed.seconds * whole.tiles, timed.number // whole.tiles)


def _warm_steps(
    config: DictConfig,
    module: pl.LightningModule,
    data: Any,  # noqa: ANN401
    precision: str,
    *,
    batch: int,
    most: int,
    limit: float,
) -> list[float]:
    """Seconds of at most `most` steps of `batch` items, after the first step."""
    machine, clock = hardware(config), _Steps(most, limit)
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
