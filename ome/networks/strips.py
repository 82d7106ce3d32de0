"""Applies layers to an image strip by strip, which needs less memory than all feature maps at once."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Strip(NamedTuple):
    """Rows `top` to `bottom` (exclusive) of an image, and the numbers of context rows `above` and `below`."""

    top: int
    bottom: int
    above: int
    below: int

    def of(self, image: Tensor) -> Tensor:
        """The strip of an image (B, channels, H, W), including its context rows."""
        return image[:, :, self.top - self.above : self.bottom + self.below]


def strips(height: int, rows: int, halo: int) -> Iterator[Strip]:
    """Divides an image into strips.

    Args:
        height: Rows of the image.
        rows: Rows of a strip; the last strip may have fewer.
        halo: Context rows on both sides of a strip; fewer at the image's borders.
    """
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield Strip(top, bottom, min(top, halo), min(height - bottom, halo))


def empty_like_part(part: Tensor, dimension: int, length: int) -> Tensor:
    """Allocates a map of some length along a dimension, in the memory layout of a part (B, channels, h, w).

    In another layout, the next layer would have to copy the whole map.
    """
    layout = torch.contiguous_format
    if not part.is_contiguous() and part.is_contiguous(memory_format=torch.channels_last):
        layout = torch.channels_last
    size = (*part.shape[:dimension], length, *part.shape[dimension + 1 :])
    return torch.empty(size, dtype=part.dtype, device=part.device, memory_format=layout)


def in_strips(
    layers: Callable[[Tensor], Tensor], image: Tensor, *, rows: int, halo: int, stride: int
) -> Tensor:
    """Computes `layers(image)` from overlapping strips of rows.

    Each strip includes the neighbouring rows that its outputs depend on; outputs of these rows are dropped.
    Padding at the borders of the image is that of the layers.

    Args:
        layers: Convolutions and pixelwise layers: (B, channels, h, w) to (B, outputs, ceil(h / stride), any
            width).
        image: (B, channels, H, W).
        rows: Rows of the image whose outputs are computed at a time, at least one stride.
        halo: Rows above and below on which these outputs depend, or more.
        stride: Rows of the image for each row of the output.

    Returns:
        (B, outputs, ceil(H / stride), width); equal to `layers(image)` up to rounding.
    """
    height = image.shape[2]
    # The layers sample every stride-th row, counted from the first; strips must start on such a row.
    step, margin = max(1, rows // stride) * stride, -(-halo // stride) * stride
    if step >= height:
        return layers(image)
    whole: Tensor | None = None
    for strip in strips(height, step, margin):
        part = layers(strip.of(image))
        if whole is None:
            whole = empty_like_part(part, 2, -(-height // stride))
        first, last = strip.top // stride, -(-strip.bottom // stride)
        whole[:, :, first:last] = part[:, :, strip.above // stride :][:, :, : last - first]
    assert whole is not None  # noqa: S101 - an image has rows
    return whole
