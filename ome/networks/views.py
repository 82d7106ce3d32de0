"""Prediction of images at several sizes and mirrored."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def flip_and_scale(
    predict_logits: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """Mean class probabilities over scales and left-right mirroring.

    Args:
        predict_logits: (B, bands, h, w) -> (B, C, any height, any width) logits.
        images: (B, bands, H, W) float, as the network takes them.
        scales: Sizes relative to the input.
        flip: Also predict each scale mirrored.

    Returns:
        (B, C, H, W) probabilities: per view, logits brought to the input's size, softmax; then the mean.

    Raises:
        ValueError: `scales` is empty.
    """
    if not scales:
        raise ValueError("scales is empty, give at least one, e.g. (1.0,)")
    height, width = images.shape[-2:]
    total = torch.zeros((), device=images.device)
    for scale in scales:
        scaled = _resize(images, max(round(height * scale), 1), max(round(width * scale), 1))
        for mirrored in (False, True) if flip else (False,):
            logits = _resize(predict_logits(scaled.flip(-1) if mirrored else scaled), height, width)
            total = total + (logits.flip(-1) if mirrored else logits).softmax(dim=1)
    return total / (len(scales) * (1 + flip))


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
