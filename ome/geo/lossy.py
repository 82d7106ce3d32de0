"""Nodata in lossily compressed images: compression blurs the border between nodata collar and image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ome.geo.raster_file import RasterFile

BLURRED: Final = 24
"""Largest change of most nodata values next to the image, in grey levels of 8 bits, at usual qualities."""

OFFSET: Final = 2
"""Largest change within a collar by JPEG 2000 and JPEG XL, in grey levels; by JPEG and WebP there is none."""

SOLID: Final = 7
"""Side in pixels of a patch of pure nodata; collars contain such patches, shadows rarely."""

REACH: Final = 16
"""How many pixels the blur reaches: one JPEG block with chroma at half resolution."""

MARGIN: Final = REACH + SOLID
"""Pixels around a window that must be read to decide about the pixels in it."""

_EXACT: Final = ("JPEG", "YCBCR JPEG", "WEBP")
"""Kinds of compression that keep values far from any edge."""

_PREVIEW: Final = 256
"""Rows and columns, at most, of the reduced image that tells the range of the values."""


@dataclass(frozen=True)
class Loss:
    """How far compression moves nodata values.

    Attributes:
        pure: Within a collar.
        near: Next to the image.
    """

    pure: float
    near: float


def loss_of(file: RasterFile, bands: Sequence[int], nodata: Sequence[float | None]) -> Loss | None:
    """How far the compression of an image moves nodata values; None for lossless compression.

    A grey level of an image of 16 bits is a 255th of its range, as its values may use any part of the bits.

    Args:
        file: An image of 8 or 16 bits.
        bands: Its bands (1-based).
        nodata: Their nodata values.
    """
    tags: dict[str, str] = file.dataset.tags(ns="IMAGE_STRUCTURE")
    if file.compression.startswith("LERC"):  # says how far it moves values at most
        most = float(tags.get("MAX_Z_ERROR", 0))
        return Loss(most, most) if most >= 1 else None
    if tags.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSLESS") or not (
        "JPEG" in file.compression or file.compression in {"WEBP", "JXL"}
    ):
        return None
    level = 1.0
    if file.dataset.dtypes[0] != "uint8":
        size = [min(_PREVIEW, length) for length in file.dataset.shape]
        everything = Window(0, 0, file.dataset.width, file.dataset.height)
        pixels = file.read(everything, indexes=list(bands), out_shape=(len(bands), *size))
        level = float(np.abs(pixels - np.array(nodata, np.float64)[:, None, None]).max()) / 255
    return Loss(0 if file.compression in _EXACT else level * OFFSET, level * BLURRED)


def near(pixels: NDArray[Any], nodata: Sequence[float | None], most: float) -> NDArray[np.bool_]:
    """Where all bands of pixels (bands, H, W) are at most so far from their nodata values, (H, W).

    Bytes are looked up in a table, as whole strips of wide images are looked at.
    """
    result = np.ones(pixels.shape[1:], dtype=bool)
    for band, value in zip(pixels, np.array(nodata, np.float64), strict=True):
        if pixels.dtype == np.uint8:
            result &= (np.abs(np.arange(256) - value) <= most)[band]
        else:
            result &= np.abs(band - value) <= most
    return result


def with_blurred(
    empty: NDArray[np.bool_], pixels: NDArray[Any], nodata: Sequence[float | None], loss: Loss
) -> NDArray[np.bool_]:
    """Adds to the nodata pixels those that compression has changed, (H, W).

    These are the pixels `near` the nodata value, within `REACH` pixels of a `SOLID` patch of nodata.

    Args:
        empty: (H, W), where pixels equal nodata.
        pixels: (bands, H, W).
        nodata: Nodata value of each band.
        loss: How far compression moves nodata.
    """
    pure = near(pixels, nodata, loss.pure) if loss.pure else empty
    patch, reach = (np.ones((side, side), np.uint8) for side in (SOLID, SOLID + 2 * REACH))
    around = cv2.dilate(cv2.erode(pure.astype(np.uint8), patch), reach)
    if not around.any():
        return empty
    return np.asarray(empty | (near(pixels, nodata, loss.near) & (around > 0)))
