"""The loss of the segmenter: every term of `ome.training.pixel_losses`, normalised over all processes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ome.distributed.collectives import sum_over_processes, world_size
from ome.training.pixel_losses import (
    LossTerm,
    PixelWeights,
    Weighting,
    hardest_pixels,
    overlap_loss,
    pixel_cross_entropy,
    weigh_pixels,
)
from ome.training.underfitting import PretendedUnderfitting


class SegmenterLosses(NamedTuple):
    """The loss of a batch, and the further terms in it.

    Attributes:
        total: What is minimised, a scalar.
        further: The weighted further terms, scalars.
    """

    total: Tensor
    further: list[Tensor]


class SegmenterLoss(nn.Module):
    """Cross-entropy per pixel times the pixel's certainty, normalised over all processes (OME, section 5).

    Args:
        weighting: Conversion of a pixel's weight of 0..255 to a loss weight, see `pixel_weights`.
        class_weights: C factors, see `weigh_pixels`; None for 1.
        label_smoothing: See `pixel_cross_entropy`.
        ohem: Fraction of the pixels with positive weight that is kept, see `hardest_pixels`; None for all.
            The divisor then sums over the kept pixels.
        dice: Weight of the Dice loss, see `overlap_loss`, which is added to the mean cross-entropy. With
            several processes it is averaged over them.
        lovasz: Weight of the Lovasz-Softmax loss, added in the same way.
        underfit: Change of the losses once their mean over all processes is low, possibly as a dict; by
            default none.
        auxiliary_weight: Weight of the cross-entropy of an auxiliary head, which has the same pixels, weights
            and divisor.
        losses: Weights and functions of further terms, added like Dice.

    Attributes:
        settings: The arguments as plain values, without `losses`.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        weighting: Weighting = "continuous",
        *,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ohem: float | None = None,
        dice: float = 0.0,
        lovasz: float = 0.0,
        underfit: PretendedUnderfitting | Mapping[str, Any] | None = None,
        auxiliary_weight: float = 0.0,
        losses: Sequence[tuple[float, LossTerm]] = (),
    ) -> None:
        super().__init__()
        if not isinstance(underfit, PretendedUnderfitting):
            underfit = PretendedUnderfitting(**(underfit or {}))
        of_classes = None if class_weights is None else [float(weight) for weight in class_weights]
        self.settings: dict[str, Any]
        self.settings = {"weighting": weighting, "class_weights": of_classes}
        self.settings |= {"label_smoothing": label_smoothing, "ohem": ohem, "dice": dice, "lovasz": lovasz}
        self.settings |= {"underfit": asdict(underfit), "auxiliary_weight": auxiliary_weight}
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self._weighting: Weighting = weighting
        self._label_smoothing = label_smoothing
        self._ohem = ohem
        self._dice = dice
        self._lovasz = lovasz
        self._underfit = underfit
        self._auxiliary_weight = auxiliary_weight
        self._losses = tuple(losses)

    def forward(
        self, logits: Tensor, mask: Tensor, weight: Tensor, auxiliary: Tensor | None = None
    ) -> SegmenterLosses:
        """Computes the loss of a batch; a collective call.

        Args:
            logits: Class scores (B, C, H, W).
            mask: Class indices (B, H, W), integers; 255 is ignored.
            weight: Certainty (B, H, W), 0..255.
            auxiliary: Class scores of the auxiliary head, if there is one.
        """
        pixels = weigh_pixels(mask, weight, self._weighting, self.class_weights)
        entropy = pixel_cross_entropy(logits, mask, self._label_smoothing)
        if self._ohem is not None:
            hardest = hardest_pixels(entropy * pixels.factor, pixels.factor > 0, self._ohem)
            pixels = PixelWeights(pixels.factor * hardest, pixels.normaliser * hardest)
        losses = entropy * pixels.factor
        normaliser, total = sum_over_processes(torch.stack([pixels.normaliser.sum(), losses.sum()]).float())
        divisor = normaliser.clamp_min(1.0)
        loss_sum = self._underfit(losses, total / divisor).sum()
        if auxiliary is not None:
            entropy = pixel_cross_entropy(auxiliary, mask, self._label_smoothing)
            loss_sum = loss_sum + self._auxiliary_weight * (entropy * pixels.factor).sum()
        # DDP averages gradients over the processes; the factor world_size turns that mean into a sum.
        loss: Tensor = loss_sum * world_size() / divisor
        if self._dice or self._lovasz:
            loss = loss + overlap_loss(logits, mask, pixels.factor, dice=self._dice, lovasz=self._lovasz)
        further = [scale * term(logits, mask, pixels.factor) for scale, term in self._losses]
        for term in further:
            loss = loss + term
        return SegmenterLosses(loss, further)
