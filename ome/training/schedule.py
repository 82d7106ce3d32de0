"""Learning-rate schedules as pure functions."""

import math
from typing import Literal

WARMUP_START = 1e-6
"""First factor of the warm-up, as in SegFormer's published recipe."""


def poly_lr(base_lr: float, step: int, max_step: int, power: float, minimum: float = 0.0) -> float:
    """Polynomial decay, minimum + (base_lr - minimum) (1 - step / max_step)^power; published: 0.9.

    The rate stays constant from step max_step - 1 on. It never reaches the minimum, so a run that takes a
    little longer than planned still learns.
    """
    factor = float((1 - min(step, max_step - 1) / max_step) ** power)
    return minimum + (base_lr - minimum) * factor


def linear_warmup(step: int, steps: int) -> float:
    """Warm-up factor: rises linearly from 1e-6 at step 0 to 1 at step `steps`; always 1 with 0 `steps`."""
    return 1.0 if step >= steps else WARMUP_START + (1 - WARMUP_START) * step / steps


ScheduleName = Literal["poly", "cosine", "constant"]


def rate_factor(
    schedule: ScheduleName,
    step: int,
    *,
    total_steps: int,
    power: float = 0.9,
    floor: float = 0.0,
    warmup: int = 0,
) -> float:
    """Factor on the base rate at a step.

    Args:
        schedule: `poly` as in `poly_lr`; `cosine` falls from 1 to the floor along half a cosine; `constant`.
        step: Optimiser steps done so far, from 0.
        total_steps: Optimiser steps planned, at least 1.
        power: Exponent of `poly`.
        floor: Limit of the factor.
        warmup: Steps of `linear_warmup`.
    """
    if schedule == "poly":
        factor = poly_lr(1.0, step, total_steps, power, floor)
    elif schedule == "cosine":
        done = min(step, total_steps - 1) / total_steps
        factor = floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2
    else:
        factor = 1.0
    return factor * linear_warmup(step, warmup)
