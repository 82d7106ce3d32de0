"""Georeferenced images read and class maps written by windows; pseudo masks and weights as PNG."""

import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from ome.errors import UserError
from ome.files import atomic_path
from ome.ignore import IGNORE

RGB = tuple[int, int, int]

BLOCK: Final = 256
"""Side of a class map's blocks in pixels."""


class WindowedImage:
    """An open 8-bit raster read by windows; see `open_image`.

    Attributes:
        path: The file.
        height: Rows.
        width: Columns.
        crs: Coordinate reference system; None where the file has none.
        transform: Pixel to world coordinates; the identity where the file has none.
        channels: Bands that are read, 1-based.
    """

    def __init__(self, dataset: Any, path: Path, channels: Sequence[int]) -> None:  # noqa: ANN401 - rasterio
        self._dataset = dataset
        self.path = path
        self.height: int = dataset.height
        self.width: int = dataset.width
        self.crs: CRS | None = dataset.crs
        self.transform: Affine = dataset.transform
        self.channels = tuple(channels)

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[np.uint8]:
        """Reads (height, width, channels) uint8 from a window inside the image.

        Raises:
            UserError: The file is damaged there.
        """
        try:
            pixels = self._dataset.read(list(self.channels), window=Window(column, row, width, height))
        except (RasterioError, OSError) as error:
            where = f"rows {row}..{row + height - 1}, columns {column}..{column + width - 1}"
            raise UserError(f"{self.path} is damaged at {where}: copy or download it again") from error
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))


@contextmanager
def open_image(path: Path, channels: Sequence[int] = (1, 2, 3)) -> Iterator[WindowedImage]:
    """Opens any 8-bit raster that GDAL reads.

    Args:
        path: The file.
        channels: Bands to read, 1-based, in the order wanted.

    Yields:
        The image; closed when the block ends.

    Raises:
        UserError: The file is missing or no raster, is not 8-bit, or lacks a band.
    """
    with _open(path) as dataset:
        dtypes = sorted(set(dataset.dtypes))
        if dtypes != ["uint8"]:
            kind, fix = ", ".join(dtypes), "gdal_translate -ot Byte -scale IN OUT"
            raise UserError(f"{path} has pixels of type {kind}, needed is uint8: convert it, e.g. {fix}")
        if not all(1 <= channel <= dataset.count for channel in channels):
            raise UserError(f"{path} has bands 1..{dataset.count}, asked for were {list(channels)}")
        yield WindowedImage(dataset, path, channels)


def read_grid(path: Path) -> tuple[CRS | None, Affine]:
    """Coordinate reference system (None where there is none) and transform of a raster.

    Raises:
        UserError: The file is missing or no raster.
    """
    with _open(path) as dataset:
        return dataset.crs, dataset.transform


def check_written(path: Path) -> None:
    """Reads a raster that was just written to its end: GDAL says nothing when the last of it found no room.

    Raises:
        OSError: It is not whole.
    """
    try:
        with _plain_pixels(), rasterio.open(path) as dataset:
            for _, window in dataset.block_windows(1):
                dataset.read(window=window)
    except RasterioError as error:
        reason = errno.ENOSPC if shutil.disk_usage(path.parent).free < (1 << 20) else errno.EIO
        raise OSError(reason, os.strerror(reason), str(path)) from error


class ClassMapWriter:
    """An open class map that takes blocks of rows; see `open_class_map`."""

    def __init__(self, dataset: Any) -> None:  # noqa: ANN401 - rasterio is untyped
        self._dataset = dataset

    def write(self, row: int, mask: NDArray[np.uint8]) -> None:
        """Writes whole rows from `row` on: (h, width) uint8 class indices or 255."""
        height, width = mask.shape
        if width != self._dataset.width or row + height > self._dataset.height:
            size = f"{self._dataset.height} x {self._dataset.width}"
            raise ValueError(f"rows {row}..{row + height - 1} of width {width} do not fit a map of {size}")
        self._dataset.write(mask, 1, window=Window(0, row, width, height))


@contextmanager
def open_class_map(
    path: Path,
    shape: tuple[int, int],
    names: Sequence[str],
    colours: Sequence[RGB],
    *,
    crs: CRS | None,
    transform: Affine | None,
) -> Iterator[ClassMapWriter]:
    """Creates a class map to be written by rows; the file appears when the block ends without an error.

    The GeoTIFF is tiled, deflated, 8-bit, coloured by its colour table, with 255 as nodata and the class
    names as the band's tags `CLASS_0`, `CLASS_1`, ...

    Args:
        path: The file to make.
        shape: (H, W) in pixels.
        names: Class names in order of index.
        colours: RGB of each class, 0..255.
        crs: Coordinate reference system; None for none.
        transform: Pixel to world coordinates; None for none.

    Yields:
        The writer.
    """
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": shape[0],
        "width": shape[1],
        "nodata": IGNORE,
        "crs": crs,
        "transform": transform,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    with atomic_path(path) as temporary, _plain_pixels():
        with rasterio.open(temporary, "w", **profile) as dataset:
            # Black elsewhere: a GeoTIFF's colour table has no transparency, nodata says what is empty.
            dataset.write_colormap(1, {index: (*colour, 255) for index, colour in enumerate(colours)})
            dataset.update_tags(1, **{f"CLASS_{index}": name for index, name in enumerate(names)})
            yield ClassMapWriter(dataset)
        check_written(temporary)


def read_class_map(path: Path) -> NDArray[np.uint8]:
    """Reads a whole class map: (H, W) uint8 class indices or 255.

    Raises:
        UserError: The file is missing, damaged or not an 8-bit raster.
    """
    with open_image(path, (1,)) as image:
        return image.read(0, 0, image.height, image.width)[..., 0]


def write_palette_png(path: Path, mask: NDArray[np.uint8], palette: Sequence[int]) -> None:
    """Writes class indices as an indexed PNG: viewers show colours, readers get the indices.

    Args:
        path: The file to make.
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
        raise UserError(f"{path} is not a whole PNG ({error}): delete it and run its stage again") from error
    if mode not in {"P", "L"}:
        raise UserError(f"{path} has pixels of mode {mode}, needed is an indexed (P) or 8-bit grey (L) PNG")
    return values


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise UserError(f"{path} does not exist: check the path")
    try:
        with _plain_pixels():
            dataset = rasterio.open(path)
    except RasterioError as error:
        raise UserError(
            f"{path} is no raster that GDAL can read: check the path or download it again"
        ) from error
    with dataset:
        yield dataset


@contextmanager
def _plain_pixels() -> Iterator[None]:
    """Without the warning about missing georeference: maps of plain pictures have none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
