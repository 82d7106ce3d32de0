"""Scales 16-bit images to 8 bits, linearly between two limits per band."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ome.geo.mosaic import Mosaic
from ome.geo.reader import Raster, sample_of
from ome.progress import track

PERCENTILES = (2, 98)
"""Percentiles of a band's valid pixels that are the lower and the upper limit."""

Limits = tuple[int, int]
"""The values that become 0 and 255."""

LEAST_LEVELS = 8
"""Least number of grey levels between the `PERCENTILES` of a band, for limits that fit its image."""

MOST_CLIPPED = 0.5
"""Largest fraction of values that such limits clip."""


def scaling_tables(
    raster: Raster | Mosaic,
    bands: Sequence[int],
    limits: Limits | None = None,
    *,
    progress: bool = False,
) -> NDArray[np.uint8]:
    """Lookup tables from the 16-bit values of a raster to bytes, one per band.

    Args:
        raster: The open raster; not read if limits are given.
        bands: The bands, 1-based.
        limits: Limits of every band; None for the `PERCENTILES` (nearest rank) of each band's valid pixels
            without its nodata value.
        progress: Show the progress of reading.

    Returns:
        (B, 65536) uint8: 0 up to the lower limit and for nodata, 255 from the upper limit on, linear and
        rounded between.

    Raises:
        UserError: The file is damaged.
    """
    counts = np.zeros((len(bands), 1 << 16), dtype=np.int64)
    if limits is None:
        strips = list(raster.strips())
        shown = track(strips, "range of the 16-bit values: strips", len(strips)) if progress else strips
        for window in shown:
            pixels = raster.read(*window, bands)
            if not raster.all_valid:
                pixels = pixels[:, raster.valid(*window)]
            counts += [np.bincount(values.ravel(), minlength=1 << 16) for values in pixels]
    return byte_tables(counts, [raster.nodata[band - 1] for band in bands], limits)


def misfit(raster: Raster | Mosaic, bands: Sequence[int], limits: Limits) -> str | None:
    """Tells limits in another unit than the values of a 16-bit raster, by nine windows.

    Returns:
        The values of the raster, in words, if the limits clip most of them or leave few grey levels of each
        band; None if the limits fit, or no pixel is valid.
    """
    parts = [raster.read(*window, bands)[:, raster.valid(*window)] for window in sample_of(raster.grid)]
    values, (low, high) = np.concatenate(parts, axis=1), limits
    if not values.size:
        return None
    first, last = np.percentile(values, PERCENTILES, axis=1, method="inverted_cdf")
    levels = (np.clip(last, low, high) - np.clip(first, low, high)) / (high - low) * 255
    clipped = ((values <= low) | (values >= high)).mean()
    if levels.max() >= LEAST_LEVELS and clipped <= MOST_CLIPPED:
        return None
    return f"values from {first.min()} to {last.max()} (percentiles {PERCENTILES[0]} and {PERCENTILES[1]})"


def byte_tables(
    counts: NDArray[np.int64], nodata: Sequence[float | None], limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Tables as `scaling_tables` returns them, from the (B, 65536) counts of the values."""
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
        counts: Number of pixels of each value.

    Returns:
        The smallest values that at least 2 % and 98 % of the pixels do not exceed; 0 and 0 without a pixel.
    """
    below = np.cumsum(counts)
    low, high = (int(np.searchsorted(100 * below, percent * below[-1])) for percent in PERCENTILES)
    return low, high


def to_bytes(pixels: NDArray[np.uint16], tables: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scales (B, rows, W) pixels by the tables of their bands."""
    return np.stack([table[values] for table, values in zip(tables, pixels, strict=True)])
