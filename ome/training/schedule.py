"""Learning-rate schedules as pure functions."""

WARMUP_START = 1e-6
"""Where the factor of the warm-up begins, as in SegFormer's published recipe."""


def poly_lr(base_lr: float, step: int, max_step: int, power: float, minimum: float = 0.0) -> float:
    """Polynomial decay, minimum + (base_lr - minimum) (1 - step / max_step)^power.

    From the last step (max_step - 1) on the rate stays as it is there. It never reaches the minimum, so a run
    that goes on a little longer than planned still learns.

    Args:
        base_lr: The rate at step 0.
        step: Optimiser steps done so far, from 0.
        max_step: Optimiser steps planned, at least 1.
        power: The exponent; the lineage uses 0.9.
        minimum: The rate the decay heads for.

    Returns:
        The learning rate at `step`.
    """
    factor = float((1 - min(step, max_step - 1) / max_step) ** power)
    return minimum + (base_lr - minimum) * factor


def linear_warmup(step: int, steps: int) -> float:
    """Factor that lets a schedule begin gently: rises linearly from 1e-6 at step 0 to 1 at step `steps`.

    Args:
        step: Optimiser steps done so far, from 0.
        steps: Length of the warm-up; 0 for none.
    """
    return 1.0 if step >= steps else WARMUP_START + (1 - WARMUP_START) * step / steps
