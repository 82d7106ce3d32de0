"""From 16 bits to 8: a scene's values are spread between two limits of each band."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (2, 98)
"""Share of a band's valid pixels, in percent, at or below the lower and the upper limit."""

Limits = tuple[int, int]
"""The values that become 0 and 255."""


def byte_tables(
    strips: Iterable[NDArray[np.uint16]], nodata: tuple[float | None, ...], limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Tables that turn the 16-bit values of a scene into bytes, one for each band.

    Args:
        strips: The scene's pixels in parts, (B, rows, W) each; not read when there are limits.
        nodata: For each band the value that means "nothing was measured here"; None without one.
        limits: The same for every band; None for the `PERCENTILES` of each band's pixels that are not nodata
            (nearest rank).

    Returns:
        (B, 65536) uint8: 0 up to the lower limit and for nodata, 255 from the upper limit on, linear and
        rounded between.
    """
    counts = np.zeros((len(nodata), 1 << 16), dtype=np.int64)
    for strip in strips if limits is None else ():
        for band, values in enumerate(strip):
            counts[band] += np.bincount(values.ravel(), minlength=1 << 16)
    tables = np.empty(counts.shape, dtype=np.uint8)
    for table, count, value in zip(tables, counts, nodata, strict=True):
        empty = int(value) if value is not None and 0 <= value < 1 << 16 else None
        if empty is not None:
            count[empty] = 0
        low, high = limits or percentile_limits(count)
        table[:] = np.rint(np.clip((np.arange(1 << 16) - low) / max(high - low, 1), 0, 1) * 255)
        if empty is not None:
            table[empty] = 0
    return tables


def percentile_limits(counts: NDArray[np.int64]) -> Limits:
    """Finds the `PERCENTILES` of a band.

    Args:
        counts: Pixels of each value.

    Returns:
        The smallest values that at least 2 % and 98 % of the pixels do not exceed; 0 and 0 without a pixel.
    """
    below = np.cumsum(counts)
    low, high = (int(np.searchsorted(100 * below, percent * below[-1])) for percent in PERCENTILES)
    return low, high


def to_bytes(pixels: NDArray[np.uint16], tables: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scales (B, rows, W) pixels by the tables of their bands."""
    return np.stack([table[values] for table, values in zip(tables, pixels, strict=True)])
