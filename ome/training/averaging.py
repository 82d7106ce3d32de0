"""A running average of the weights while training: what is validated, and what is left in the end.

Polyak & Juditsky, SIAM Journal on Control and Optimization 1992; Tarvainen & Valpola, NeurIPS 2017.
"""

from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


def averaging(memory: float, total_steps: int) -> list[Callback]:
    """Makes what keeps an exponential moving average of the weights and of BatchNorm's statistics.

    Args:
        memory: Fraction of all steps that the average looks back on: its decay is
            1 - 1 / (memory * total_steps). With 0 nothing is averaged.
        total_steps: Optimiser steps of the whole training.

    Returns:
        The callback, or none.
    """
    if not memory:
        return []
    decay = 1 - 1 / max(1.0, memory * total_steps)
    return [WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(decay))]  # type: ignore[no-untyped-call]
