"""Nodata in lossily compressed images: compression blurs the border between nodata collar and image."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

BLURRED: Final = 24
"""Largest change of most nodata values next to the image by JPEG and WebP at usual qualities."""

SOLID: Final = 7
"""Side in pixels of a patch of pure nodata; collars contain such patches, shadows rarely."""

REACH: Final = 16
"""How many pixels the blur reaches: one JPEG block with chroma at half resolution."""

MARGIN: Final = REACH + SOLID
"""Pixels around a window that must be read to decide about the pixels in it."""


def near(pixels: NDArray[np.uint8], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Where all bands of pixels (bands, H, W) are within `BLURRED` of their nodata values, (H, W).

    It is looked up in a table, as whole strips of wide images are looked at.
    """
    result = np.ones(pixels.shape[1:], dtype=bool)
    for band, value in zip(pixels, np.array(nodata, np.float64), strict=True):
        result &= (np.abs(np.arange(256) - value) <= BLURRED)[band]
    return result


def with_blurred(empty: NDArray[np.bool_], near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Adds to the nodata pixels those that compression has changed, (H, W).

    These are the pixels `near` the nodata value, within `REACH` pixels of a `SOLID` patch of nodata.
    """
    patch, reach = (np.ones((side, side), np.uint8) for side in (SOLID, SOLID + 2 * REACH))
    around = cv2.dilate(cv2.erode(empty.astype(np.uint8), patch), reach)
    return np.asarray(empty | (near & (around > 0)))
