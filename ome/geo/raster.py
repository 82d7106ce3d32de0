"""Rasters that GDAL has written, which are read back; class maps; pseudo masks and weights as PNG."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio._err import CPLE_BaseError

from ome.errors import UserError
from ome.faults import is_no_damage
from ome.files import atomic_path
from ome.geo.reader import Raster


@contextmanager
def atomic_raster(path: Path, size: int) -> Iterator[Path]:
    """Yields a temporary path as `atomic_path` does, for GDAL, which may not report a full disk.

    Args:
        path: The raster to write.
        size: Bytes that may be needed; if writing fails and hardly more are free, the disk is full.

    Raises:
        OSError: The disk is full, or the raster is incomplete.
    """
    with atomic_path(path) as temporary:
        try:
            yield temporary
            check_written(temporary)
        except (OSError, CPLE_BaseError) as error:
            known = isinstance(error, OSError) and error.errno not in {None, errno.EIO}
            if known or shutil.disk_usage(path.parent).free > size + (1 << 20):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def check_written(path: Path) -> None:
    """Reads back a raster that was just written.

    Raises:
        OSError: The raster is incomplete.
    """
    try:
        with Raster(path) as raster:
            for strip in raster.strips():
                raster.read(*strip)
                raster.valid(*strip)
    except UserError as error:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error


@contextmanager
def open_class_map(path: Path) -> Iterator[Raster]:
    """Opens a class map, whose `values` are class indices or 255.

    Raises:
        UserError: The file is missing, damaged or not an 8-bit raster.
    """
    with Raster(path) as raster:
        raster.require(("uint8",))
        yield raster


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
        if is_no_damage(error):
            raise
        raise UserError(
            f"{path} is damaged or incomplete ({error}): delete it and run its stage again"
        ) from error
    if mode not in {"P", "L"}:
        raise UserError(f"{path} has pixels of mode {mode}: give an indexed (P) or 8-bit grey (L) PNG")
    return values
