"""Whether a band labelled alpha is a validity mask, or an image band such as infrared."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

OPAQUE: Final = 0.95
"""Least fraction of an opacity band's pixels that are 0 or its maximum; an infrared band has many values."""

FEATHERED: Final = 0.75
"""Least fraction of an opacity band's nonzero pixels that are its maximum, where its edges are soft."""

BLANK: Final = 0.5
"""The same where the image has a single colour wherever the band is 0."""


def is_opacity(values: NDArray[Any], image: NDArray[Any]) -> bool:
    """Whether nearly all values of a band are 0 or its maximum.

    GDAL labels the fourth band of many GeoTIFFs alpha. Soft edges are allowed, wider ones where the image has
    a single colour wherever the band is 0. A band that is 0 everywhere is opacity only if the image has a
    single colour too; otherwise the band was never written.

    Args:
        values: Pixels of the band, (N,).
        image: The same pixels of the image's bands, (B, N).
    """
    empty, full = values == 0, values == values.max()
    blank = bool(empty.any()) and is_one_colour(image[:, empty])
    if empty.all() or (blank and (empty | full).mean() >= OPAQUE):
        return blank
    solid = full.sum() / (~empty).sum()
    return bool(solid >= (BLANK if blank else FEATHERED if empty.any() else OPAQUE))


def is_one_colour(pixels: NDArray[Any]) -> bool:
    """Whether nearly all pixels (B, N) are equal."""
    middle = np.quantile(pixels, 0.5, axis=1, method="nearest", keepdims=True)
    return bool((pixels == middle).all(axis=0).mean() >= OPAQUE)
