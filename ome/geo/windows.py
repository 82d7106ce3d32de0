"""The layout of windows and tiles along an axis, without importing torch."""

from collections.abc import Sequence
from typing import Final

WIDEST: Final = 4
"""Largest factor of the side of windows that a prediction shrinks: memory grows with its square."""


def window_side(tile: int, scales: Sequence[float]) -> int:
    """Side of the windows that a segmenter predicts at some scales, from that of its training crops.

    If all scales are below 1, windows have more pixels, up to `WIDEST` times as many to a side: the network
    then sees as many as in training.
    """
    return round(tile * min(WIDEST, max(1.0, 1 / max(scales))))


def window_starts(length: int, size: int, stride: int) -> list[int]:
    """Where windows start along one axis so that they cover it; the last is shifted back to the edge.

    Args:
        length: Pixels along the axis.
        size: Window size in pixels.
        stride: Pixels from one start to the next; more than `size` leaves gaps.

    Returns:
        Ascending starts; `[0]` where the axis is no longer than a window.

    Raises:
        ValueError: `length` or `stride` is not positive.
    """
    if length < 1:
        raise ValueError(f"length is {length}, must be at least 1")
    if stride < 1:
        raise ValueError(f"stride is {stride}, must be at least 1")
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def window_stride(size: int, fraction: float) -> int:
    """Pixels from one window to the next, at least 1, from a fraction of the window's side."""
    return max(1, int(size * fraction))


def rows_of_part(height: int, size: int, stride: int, part: int, parts: int) -> range:
    """The rows of a scene that one of several processes predicts; together they cover each row once.

    Where there are more processes than rows of windows, some get no rows.
    """
    starts = window_starts(height, size, stride)
    bounds = [*(starts[len(starts) * number // parts] for number in range(parts)), height]
    return range(bounds[part], bounds[part + 1])
