"""Reading whole class maps; pseudo masks and weights as PNG."""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ome.errors import UserError
from ome.files import atomic_path
from ome.geo.reader import Raster


def check_written(path: Path) -> None:
    """Reads back a raster that was just written: GDAL reports no error where the disk is full at the end.

    Raises:
        OSError: The raster is incomplete.
    """
    try:
        with Raster(path) as raster:
            for strip in raster.strips():
                raster.read(*strip)
    except UserError as error:
        reason = errno.ENOSPC if shutil.disk_usage(path.parent).free < (1 << 20) else errno.EIO
        raise OSError(reason, os.strerror(reason), str(path)) from error


def read_class_map(path: Path) -> NDArray[np.uint8]:
    """Reads a whole class map: (H, W) uint8 class indices or 255.

    Raises:
        UserError: The file is missing, damaged or not an 8-bit raster.
    """
    with Raster(path) as raster:
        raster.require(("uint8",))
        return raster.values(0, 0, raster.grid.height, raster.grid.width)


def write_palette_png(path: Path, mask: NDArray[np.uint8], palette: Sequence[int]) -> None:
    """Writes class indices as an indexed PNG: viewers show colours, readers get the indices.

    Args:
        path: The file to write.
        mask: (H, W) uint8 class indices or 255.
        palette: 768 values, red, green and blue of each index in 0..255.
    """
    image = Image.fromarray(mask)
    image.putpalette(list(palette))
    with atomic_path(path) as temporary:
        image.save(temporary)


def write_grey_png(path: Path, values: NDArray[np.uint8]) -> None:
    """Writes (H, W) uint8 values as a grey PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(values).save(temporary)


def read_png(path: Path) -> NDArray[np.uint8]:
    """Reads an indexed or grey PNG.

    Returns:
        (H, W) uint8: the indices, not their colours, or the grey values.

    Raises:
        UserError: The file is missing, truncated, no PNG, or has another kind of pixels.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            mode, values = image.mode, np.array(image)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the stage that writes it") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or incomplete ({error}): delete it and run its stage again"
        ) from error
    if mode not in {"P", "L"}:
        raise UserError(f"{path} has pixels of mode {mode}: give an indexed (P) or 8-bit grey (L) PNG")
    return values
