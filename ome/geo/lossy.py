"""Where nothing was measured in an image compressed with loss, which blurs the borders of collars."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

BLURRED: Final = 24
"""How far JPEG, at usual qualities, moves most values of a collar where it meets the image."""

SOLID: Final = 7
"""Pixels along a side of a patch that is nodata throughout, as collars have them and shadows seldom."""

REACH: Final = 16
"""Pixels that a blur reaches: a block of JPEG with colours at half the resolution."""

MARGIN: Final = REACH + SOLID
"""Pixels around a window that decide about its pixels."""


def near(pixels: NDArray[np.uint8], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Pixels within `BLURRED` of nodata, by a table: whole strips of wide images are looked at.

    Args:
        pixels: (bands, H, W).
        nodata: Value of each band where nothing was measured.

    Returns:
        (H, W): where all bands are.
    """
    result = np.ones(pixels.shape[1:], dtype=bool)
    for band, value in zip(pixels, np.array(nodata, np.float64), strict=True):
        result &= (np.abs(np.arange(256) - value) <= BLURRED)[band]
    return result


def with_blurred(empty: NDArray[np.bool_], near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Adds to pixels without a measurement those that loss has moved away from nodata.

    Args:
        empty: Pixels that are nodata, (H, W).
        near: Pixels within `BLURRED` of it, (H, W).

    Returns:
        (H, W): pixels that are nodata, and those near it within `REACH` of a `SOLID` patch.
    """
    patch, reach = (np.ones((side, side), np.uint8) for side in (SOLID, SOLID + 2 * REACH))
    around = cv2.dilate(cv2.erode(empty.astype(np.uint8), patch), reach)
    return np.asarray(empty | (near & (around > 0)))
