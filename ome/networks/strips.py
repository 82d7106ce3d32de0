"""Applies layers to an image strip by strip, so that their widest maps never exist as a whole."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Strip(NamedTuple):
    """Rows `top` to `bottom` (exclusive), and the numbers of context rows `above` and `below`."""

    top: int
    bottom: int
    above: int
    below: int

    def of(self, image: Tensor) -> Tensor:
        """Those rows and their neighbours, of an image (B, channels, H, W)."""
        return image[:, :, self.top - self.above : self.bottom + self.below]


def strips(height: int, rows: int, halo: int) -> Iterator[Strip]:
    """Divides an image into strips.

    Args:
        height: Of the image.
        rows: Of a strip; the last may have fewer.
        halo: Neighbours wanted on both sides of a strip; at the image's borders there are fewer.
    """
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield Strip(top, bottom, min(top, halo), min(height - bottom, halo))


def empty_like_part(part: Tensor, dimension: int, length: int) -> Tensor:
    """Room for all parts, in the layout of one of them (B, channels, h, w), one dimension of another length.

    In another layout, the next layer would turn the whole map around in a copy.
    """
    layout = torch.contiguous_format
    if not part.is_contiguous() and part.is_contiguous(memory_format=torch.channels_last):
        layout = torch.channels_last
    size = (*part.shape[:dimension], length, *part.shape[dimension + 1 :])
    return torch.empty(size, dtype=part.dtype, device=part.device, memory_format=layout)


def in_strips(
    layers: Callable[[Tensor], Tensor], image: Tensor, *, rows: int, halo: int, stride: int
) -> Tensor:
    """Computes what `layers(image)` computes, from strips of rows that overlap.

    A strip carries as many rows of its neighbours as its outputs depend on, and is cut to its own outputs.
    At the image's own borders the layers pad as ever.

    Args:
        layers: Convolutions and what works pixel by pixel: (B, channels, h, w) to (B, outputs,
            ceil(h / stride), any width).
        image: (B, channels, H, W).
        rows: Rows of the image whose outputs are computed at a time, at least one stride.
        halo: Rows above and below that these outputs depend on, at least.
        stride: Rows of the image for each row of the output.

    Returns:
        (B, outputs, ceil(H / stride), width); differs from `layers(image)` by rounding alone.
    """
    height = image.shape[2]
    # The layers look at every stride-th row from the first one on, and in a strip too they must meet these.
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
