"""Whether a band that a file calls opacity says where something was measured, or is an image, as infrared."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

OPAQUE: Final = 0.95
"""Fraction of an opacity band's pixels that are 0 or its maximum; an infrared band has many values."""

FEATHERED: Final = 0.75
"""Fraction of an opacity band's pixels above 0 that are its maximum, where its edges are soft."""

BLANK: Final = 0.5
"""The same where the image is of one colour wherever the band is 0."""


def is_opacity(values: NDArray[Any], image: NDArray[Any]) -> bool:
    """Whether a band has hardly any values but 0 and its maximum.

    GDAL calls the fourth band of many a GeoTIFF opacity. Soft edges are allowed, the more so where the image
    is of one colour wherever the band is 0. A band of nothing but 0 is opacity only where the image is of one
    colour too; else it was never written.

    Args:
        values: Of the band, (N,).
        image: The same pixels of the image's bands, (B, N).
    """
    empty, full = values == 0, values == values.max()
    blank = bool(empty.any()) and _is_one_colour(image[:, empty])
    if empty.all() or (blank and (empty | full).mean() >= OPAQUE):
        return blank
    solid = full.sum() / (~empty).sum()
    return bool(solid >= (BLANK if blank else FEATHERED if empty.any() else OPAQUE))


def _is_one_colour(pixels: NDArray[Any]) -> bool:
    """Whether hardly any of pixels (B, N) differ from the others."""
    middle = np.quantile(pixels, 0.5, axis=1, method="nearest", keepdims=True)
    return bool((pixels == middle).all(axis=0).mean() >= OPAQUE)
