"""Gradient clipping that works with fused optimisers under mixed precision, unlike Lightning's."""

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from ome.errors import UserError
from ome.training.scalars import is_read


class ClippedModule(pl.LightningModule):
    """A module whose gradients are clipped by the trainer's settings, under every precision."""

    @property
    def logs(self) -> bool:
        """Whether to log the scalars of this step, see `is_read`; always where there is no trainer."""
        return self._trainer is None or is_read(self.trainer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips; see `clip`."""
        del optimizer
        self.clip(gradient_clip_val, gradient_clip_algorithm)

    def clip(self, value: float | None, algorithm: str | None) -> Tensor | None:
        """Clips the gradients in place.

        Args:
            value: Largest total norm, or largest absolute value of each; None or 0 disables clipping.
            algorithm: `norm` (also for None) or `value`.

        Returns:
            The norm before clipping, a scalar; None unless clipped by norm.

        Raises:
            UserError: The algorithm does not exist.
        """
        if algorithm not in {None, "norm", "value"}:
            raise UserError(f"trainer.gradient_clip_algorithm={algorithm}: choose norm or value")
        if not value:
            return None
        # 16-mixed scales the gradient, and a fused optimiser unscales it within its step.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        if algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), scale * value)
            return None
        return torch.nn.utils.clip_grad_norm_(self.parameters(), scale * value) / scale
