"""Scales 16-bit images to 8 bits, linearly between two limits per band."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ome.geo.mosaic import Mosaic
from ome.geo.reader import Raster
from ome.geo.strips import sample_of
from ome.progress import track

PERCENTILES = (2, 98)
"""Percentiles of a band's valid pixels that are the lower and the upper limit."""

Limits = tuple[int, int]
"""The values that become 0 and 255."""

LEAST_LEVELS = 8
"""Least number of grey levels between the `PERCENTILES` of a band, for limits that fit its image."""

MOST_CLIPPED = 0.5
"""Largest fraction of values that such limits clip."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """Lookup tables from 16-bit values to bytes, one per band.

    Attributes:
        tables: (B, 65536) uint8: 0 up to the lower limit, 255 from the upper limit on, linear and rounded
            between.
        nodata: Nodata value of each band; None for a band without.
    """

    tables: NDArray[np.uint8]
    nodata: tuple[float | None, ...]

    @classmethod
    def of_counts(
        cls, counts: NDArray[np.int64], nodata: Sequence[float | None], limits: Limits | None = None
    ) -> "Scaling":
        """The scaling by the (B, 65536) counts of the values of valid pixels; see `scaling_of`."""
        tables = np.empty(counts.shape, dtype=np.uint8)
        for table, count, value in zip(tables, counts, nodata, strict=True):
            if value is not None and 0 <= value < 1 << 16:
                count[int(value)] = 0  # a valid pixel with this value is dark or saturated
            low, high = limits or _percentiles(count)
            if limits is None and not count.any():
                low, high = (1 << 16) - 1, 1 << 16  # a band without a measured value is black
            table[:] = np.rint(np.clip((np.arange(1 << 16) - low) / max(high - low, 1), 0, 1) * 255)
        return cls(tables, tuple(nodata))

    def to_bytes(self, pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Scales pixels (B, H, W); 0 where all bands hold their nodata value."""
        scaled = np.stack([table[values] for table, values in zip(self.tables, pixels, strict=True)])
        if any(self.nodata) and None not in self.nodata:
            pairs = zip(pixels, self.nodata, strict=True)
            scaled[:, np.all([band == value for band, value in pairs], axis=0)] = 0
        return scaled


def scaling_of(
    raster: Raster | Mosaic, bands: Sequence[int], limits: Limits | None = None, *, progress: bool = False
) -> Scaling:
    """The scaling of a 16-bit raster.

    Args:
        raster: The open raster; not read if limits are given.
        bands: The bands, 1-based.
        limits: Limits of every band; None for the `PERCENTILES` (nearest rank) of each band's valid pixels
            without its nodata value.
        progress: Show the progress of reading.

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
    return Scaling.of_counts(counts, [raster.nodata[band - 1] for band in bands], limits)


def sampled(raster: Raster | Mosaic, bands: Sequence[int]) -> NDArray[np.uint16]:
    """Valid pixels of nine windows of a 16-bit raster, (B, N)."""
    parts = [raster.read(*window, bands)[:, raster.valid(*window)] for window in sample_of(raster.grid)]
    values: NDArray[np.uint16] = np.concatenate(parts, axis=1)
    return values


def common_limits(samples: Sequence[NDArray[np.uint16]]) -> Limits | None:
    """Limits of all images together, if most of them have only a part of these values.

    Stretched one by one, such images look alike, however dark or bright they are.

    Args:
        samples: Values of each image, of any shape.

    Returns:
        The `PERCENTILES` of all, at most 1000 values of each image; None if the `PERCENTILES` of half of the
        images are at least half as far apart, or nothing is valid.
    """
    some = [values.ravel()[:: 1 + values.size // 1000] for values in samples if values.size]
    if not some:
        return None
    low, high = np.percentile(np.concatenate(some), PERCENTILES, method="inverted_cdf").tolist()
    spans = [np.ptp(np.percentile(values, PERCENTILES)) for values in some]
    return (low, high) if np.median(spans) < (high - low) / 2 else None


def misfit(raster: Raster | Mosaic, bands: Sequence[int], limits: Limits) -> str | None:
    """Tells limits in another unit than the values of a 16-bit raster, by nine windows.

    Returns:
        The values of the raster, in words, if the limits clip most of them or leave few grey levels of each
        band; None if the limits fit, or no pixel is valid.
    """
    values, (low, high) = sampled(raster, bands), limits
    if not values.size:
        return None
    first, last = np.percentile(values, PERCENTILES, axis=1, method="inverted_cdf")
    levels = (np.clip(last, low, high) - np.clip(first, low, high)) / (high - low) * 255
    clipped = ((values <= low) | (values >= high)).mean()
    if levels.max() >= LEAST_LEVELS and clipped <= MOST_CLIPPED:
        return None
    return f"values from {first.min()} to {last.max()} (percentiles {PERCENTILES[0]} and {PERCENTILES[1]})"


def _percentiles(counts: NDArray[np.int64]) -> Limits:
    """The smallest values that at least 2 % and 98 % of the pixels do not exceed; 0 and 0 without a pixel."""
    below = np.cumsum(counts)
    low, high = (int(np.searchsorted(100 * below, percent * below[-1])) for percent in PERCENTILES)
    return low, high
