"""Gradient clipping that fused optimisers allow under mixed precision; Lightning's own refuses them."""

import pytorch_lightning as pl
import torch
from torch import Tensor

from ome.errors import UserError


def clip_gradients(module: pl.LightningModule, value: float | None, algorithm: str | None) -> Tensor | None:
    """Clips the gradients of a module that is being trained.

    Args:
        module: Its gradients are changed in place.
        value: Largest norm of all of them together, or largest size of each; None or 0 changes nothing.
        algorithm: `norm` (also for None) or `value`.

    Returns:
        Their norm before, a scalar; None where nothing was clipped by norm.

    Raises:
        UserError: There is no such algorithm.
    """
    if algorithm not in {None, "norm", "value"}:
        raise UserError(f"trainer.gradient_clip_algorithm={algorithm}: choose norm or value")
    if not value:
        return None
    # 16-mixed scales the gradient, and a fused optimiser takes the scale off within its step.
    scaler = getattr(module.trainer.precision_plugin, "scaler", None)
    scale = 1.0 if scaler is None else float(scaler.get_scale())
    if algorithm == "value":
        torch.nn.utils.clip_grad_value_(module.parameters(), scale * value)
        return None
    return torch.nn.utils.clip_grad_norm_(module.parameters(), scale * value) / scale
