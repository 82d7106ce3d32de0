"""Prediction of images at several scales, flipped and rotated."""

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Tta: TypeAlias = Literal["d4"]
"""Test-time augmentation: `d4` is the four rotations by multiples of 90 degrees and their mirror images."""

_PLAIN: Final = ((False, 0),)
_FLIPPED: Final = ((False, 0), (True, 0))
_D4: Final = tuple((mirrored, turns) for turns in range(4) for mirrored in (False, True))
"""Whether an image is mirrored left to right, and quarter turns after that."""


def flip_and_scale(
    predict_logits: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tta: Tta | None = None,
) -> Tensor:
    """Mean class probabilities over scales and orientations.

    Args:
        predict_logits: Computes logits (B, C, any height, any width) of images (B, bands, h, w).
        images: Normalised images (B, bands, H, W), float.
        scales: Sizes relative to the input.
        flip: Also predict each scale mirrored left to right.
        tta: `d4` predicts each scale in all eight orientations, whatever `flip` says.

    Returns:
        (B, C, H, W) probabilities: the mean over views of the softmax of the logits resized to (H, W).

    Raises:
        ValueError: `scales` is empty.
    """
    if not scales:
        raise ValueError("scales is empty, give at least one, e.g. (1.0,)")
    height, width = images.shape[-2:]
    orientations = _D4 if tta == "d4" else _FLIPPED if flip else _PLAIN
    total = torch.zeros((), device=images.device)
    for scale in scales:
        scaled = _resize(images, max(round(height * scale), 1), max(round(width * scale), 1))
        for mirrored, turns in orientations:
            view = _rotated(scaled.flip(-1) if mirrored else scaled, turns)
            sides = (width, height) if turns % 2 else (height, width)
            logits = _rotated(_resize(predict_logits(view), *sides), -turns)
            total = total + (logits.flip(-1) if mirrored else logits).softmax(dim=1)
    return total / (len(scales) * len(orientations))


def _rotated(maps: Tensor, turns: int) -> Tensor:
    # rot90 by 0 turns copies into another memory layout, in which networks round differently.
    return maps.rot90(turns, (-2, -1)) if turns else maps


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    if maps.shape[-2:] == (height, width):
        return maps
    # Below half the size, plain interpolation skips pixels.
    skips = 2 * height < maps.shape[-2] or 2 * width < maps.shape[-1]
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False, antialias=skips)
