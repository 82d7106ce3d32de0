"""Measures the seconds of the work of a chain's stage, for `chain_stages.py`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ome.training.clipping import ClippedModule
from ome.training.hardware import autocast, channels_last


@dataclass
class Clock:
    """Measures the seconds of some work: wall-clock time on a GPU, time of one core on a CPU."""

    device: torch.device
    steps: int
    known: dict[tuple[object, ...], float] = field(default_factory=dict)

    def seconds(
        self, key: tuple[object, ...], prepare: Callable[[], Callable[[], object]], *, on_cores: bool = False
    ) -> float:
        """Returns the mean of `steps` calls of the work that is prepared; measures each key only once."""
        if key not in self.known:
            torch.manual_seed(0)
            work = prepare()
            gpu = self.device.type == "cuda" and not on_cores
            clock = time.perf_counter if gpu else time.process_time
            if gpu:
                work()
                torch.cuda.synchronize()
            started = clock()
            for _ in range(self.steps):
                work()
            if gpu:
                torch.cuda.synchronize()
            self.known[key] = (clock() - started) / self.steps
        return self.known[key]


def stepper(module: ClippedModule, batch: dict[str, torch.Tensor], precision: str) -> Callable[[], None]:
    """Returns a function that runs one training step of a module, without its logger."""
    device = batch["image"].device
    channels_last(module.to(device)).train()
    module.log = lambda *_args, **_options: None  # type: ignore[method-assign]
    configured: Any = module.configure_optimizers()
    optimizer: torch.optim.Optimizer = configured["optimizer"]
    training_step: Callable[[dict[str, torch.Tensor]], Any] = module.training_step

    def step() -> None:
        optimizer.zero_grad()
        with autocast(device, precision):
            loss = training_step(batch)
        loss.backward()
        optimizer.step()

    return step
