"""Letters of classes in masks, for readers who cannot distinguish the colours."""

import string
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

SMALLEST_LETTERED: Final = 0.01
"""Least fraction of a tile that a class must cover to get a letter."""


def letter_of(index: int) -> str:
    """The letter of a class: A, B, ..., Z, and its index for further classes."""
    letters = string.ascii_uppercase
    return letters[index] if index < len(letters) else str(index)


def letter_spots(region: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Positions of letters inside a region, far enough apart.

    The first is the pixel whose surrounding square, a quarter of the tile wide, has most pixels of the
    region; others follow as long as at least half of their square belongs to the region.

    Args:
        region: (H, W) bool with at least one true pixel.

    Returns:
        Row and column of each position, at least one.
    """
    size = max(region.shape)
    reach = max(size // 8, 1)
    inside = np.where(region, _box_sum(region, reach), 0)
    rows, columns = np.ogrid[: region.shape[0], : region.shape[1]]
    spots: list[tuple[int, int]] = []
    while True:
        row, column = divmod(int(inside.argmax()), region.shape[1])
        if spots and inside[row, column] < 0.5 * (2 * reach + 1) ** 2:
            return spots
        spots.append((row, column))
        inside[np.hypot(rows - row, columns - column) < 0.4 * size] = 0


def _box_sum(region: NDArray[np.bool_], reach: int) -> NDArray[np.int64]:
    """Number of pixels of the region within `reach` rows and columns of each pixel, (H, W)."""
    sums = region.astype(np.int64)
    for axis in (0, 1):
        sums = convolve1d(sums, np.ones(2 * reach + 1), axis, mode="constant")
    return sums
