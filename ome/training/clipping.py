"""Gradient clipping that works with fused optimisers under mixed precision, unlike Lightning's."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ome.errors import UserError
from ome.training.recorders import is_read


class ClippedModule(pl.LightningModule):
    """A module with a submodule `network`, whose gradients are clipped by the trainer's settings.

    Attributes:
        shared_seed: For what all processes must draw alike in a step: the seed of the first one, see
            `SeedEachStep`; None outside of `fit`.
    """

    shared_seed: int | None = None

    @property
    def compiled_part(self) -> nn.Module:
        """The part of the network whose forward pass may be compiled."""
        return self.get_submodule("network")

    def forward(self, image: Tensor) -> Any:  # noqa: ANN401 - whatever the network returns
        """What the network predicts for images (B, bands, H, W)."""
        return self.get_submodule("network")(image)

    def outputs(self, image: Tensor) -> Any:  # noqa: ANN401 - whatever the network returns
        """All forward passes of a training step for images (B, bands, H, W), with their gradient graph."""
        # Not `self(image)`: with several processes, Lightning calls the training step in place of `forward`.
        return self.get_submodule("network")(image)

    def sizes(self, image: Tensor) -> int:
        """The number of sizes that images (B, bands, H, W) of a batch may have in these passes."""
        del image
        return 1

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
        # A tensor, since the host would wait for the device to read the number.
        scale = None if scaler is None else scaler.scale(torch.ones((), device=self.device))
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if algorithm == "value":
            if scale is None:
                torch.nn.utils.clip_grad_value_(self.parameters(), value)
            else:
                for gradient in gradients:
                    gradient.clamp_(-value * scale, value * scale)
            return None
        norm = torch.nn.utils.get_total_norm(gradients)
        if scale is not None:
            norm = norm / scale
        torch.nn.utils.clip_grads_with_norm_(self.parameters(), value, norm)
        return norm
