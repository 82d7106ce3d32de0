"""The lineage's optimiser, shared by the classifier and AffinityNet."""

from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler

from ome.training.schedule import poly_lr


def sgd_with_poly_decay(
    groups: Iterable[dict[str, Any]], *, momentum: float, total_steps: int, power: float
) -> OptimizerLRScheduler:
    """SGD whose rates decay polynomially at every step.

    Args:
        groups: Parameter groups with their own rates; empty ones are left out.
        momentum: Of SGD.
        total_steps: Optimiser steps of the whole training.
        power: Of the decay, see `poly_lr`.

    Returns:
        What `LightningModule.configure_optimizers` returns.
    """
    optimizer = torch.optim.SGD([group for group in groups if group["params"]], momentum=momentum)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: poly_lr(1.0, step, total_steps, power)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
