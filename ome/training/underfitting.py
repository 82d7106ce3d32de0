"""Pretended under-fitting: once the loss is low, what remains of it is taken for noise in the pseudo masks.

From Li et al., "Pseudo-mask Matters in Weakly-supervised Semantic Segmentation", ICCV 2021, and used with
weights by Li et al. (URN), AAAI 2022, whose public code uses beta = k = 0.5 for VOC and 0.8 for COCO.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from ome.errors import UserError

UnderfitMode = Literal["none", "pow", "clamp", "ignore"]
EPSILON: Final = 1e-9  # keeps the derivative of the power finite at 0


@dataclass(frozen=True)
class PretendedUnderfitting:
    """Changes the losses of a batch's pixels where their mean is below beta.

    Args:
        mode: What becomes of the loss l of a pixel, which is its weight times its cross-entropy. "none": l;
            "pow": (l + 1e-9) ** k, and 0 where l is 0; "clamp": the smaller of l and k, so that pixels beyond
            k have no gradient; "ignore": l where l <= k, else 0. These two train the same network, since
            they differ in pixels without gradient alone.
        beta: The mean below which the losses are changed, at least 0.
        k: The constant of the mode, above 0.

    Raises:
        UserError: If the mode is none of these or a number is out of its range.
    """

    mode: UnderfitMode = "none"
    beta: float = 0.5
    k: float = 0.5

    def __post_init__(self) -> None:
        modes = get_args(UnderfitMode)
        if self.mode not in modes:
            raise UserError(f"underfit is {self.mode}: choose one of {', '.join(modes)}")
        if not (self.beta >= 0 and self.k > 0):
            raise UserError(
                f"underfit_beta is {self.beta} and underfit_k is {self.k}: give a mean loss of at least 0 "
                "and a constant above 0"
            )

    def __call__(self, losses: Tensor, mean: Tensor) -> Tensor:
        """Applies the mode.

        URN compares each process's mean over all pixels, ignored ones included, with beta. Here the mean is
        given, so that it can be the loss that is trained: over all processes and the pixels that count.

        Args:
            losses: Loss of each pixel, any shape, at least 0; 0 for ignored pixels.
            mean: Their sum over the divisor of the loss, a scalar without gradient.

        Returns:
            The losses, changed where `mean` < beta.
        """
        if self.mode == "none":
            return losses
        # Chosen on the device: a comparison in Python would wait for it at every step.
        return torch.where(mean < self.beta, self._changed(losses), losses)

    def _changed(self, losses: Tensor) -> Tensor:
        if self.mode == "pow":
            return torch.where(losses > 0, (losses + EPSILON) ** self.k, 0.0)
        if self.mode == "clamp":
            return losses.clamp_max(self.k)
        return torch.where(losses <= self.k, losses, 0.0)
