"""Learning-rate schedules as pure functions."""


def poly_factor(step: int, max_step: int, power: float) -> float:
    """Polynomial decay (1 - step / max_step)^power.

    From the last step (max_step - 1) on the factor stays as it is there. It never reaches 0, so a run that
    goes on a little longer than planned still learns.

    Args:
        step: Optimiser steps done so far, from 0.
        max_step: Optimiser steps planned, at least 1.
        power: The exponent; the lineage uses 0.9.

    Returns:
        The factor, in (0, 1].
    """
    return float((1 - min(step, max_step - 1) / max_step) ** power)


def poly_lr(base_lr: float, step: int, max_step: int, power: float, minimum: float = 0.0) -> float:
    """Learning rate that decays polynomially from `base_lr` towards `minimum`; see `poly_factor`.

    Args:
        base_lr: The rate at step 0.
        step: Optimiser steps done so far, from 0.
        max_step: Optimiser steps planned, at least 1.
        power: The exponent; the lineage uses 0.9.
        minimum: The rate the decay heads for.

    Returns:
        The learning rate at `step`.
    """
    return minimum + (base_lr - minimum) * poly_factor(step, max_step, power)
