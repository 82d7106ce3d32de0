"""One file of a raw dataset, read as a raster strip by strip, also from inside a zip archive.

Nothing is ever unpacked to disk: a member is read into memory, so its name cannot lead outside a folder.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.windows import Window

from ome.data.scenes import plain_pixels
from ome.errors import UserError

MAX_MEMBER: Final = 4 << 30
"""Bytes that a file may have when unpacked; the largest real one has 144 MB."""

# Both formats otherwise return what they could read of a truncated file, the rest filled up.
_STRICT: Final = {"GDAL_PNG_WHOLE_IMAGE_OPTIM": False, "GDAL_ERROR_ON_LIBJPEG_WARNING": True}


MASK_DEPTHS: Final = ("uint8",)
IMAGE_DEPTHS: Final = ("uint8", "uint16")
"""Kinds of values that are read; deeper images are scaled to 8 bits, see `ome.data.scaling`."""


class UnreadableError(UserError):
    """A file that is damaged, no image, or of another depth: a folder may hold several."""


@dataclass(frozen=True)
class RawFile:
    """One file of a raw dataset: a member of a zip archive, or a plain file.

    Attributes:
        container: The archive or the folder.
        name: Path within the container.
        size: Bytes, unpacked.
        stamp: Checksum of an archive's member, or time of the last change of a plain file.
        siblings: Names in the container that may hold its georeference.
    """

    container: Path
    name: str
    size: int
    stamp: int
    siblings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.container}:{self.name}" if self.zipped else str(self.container / self.name)

    @property
    def zipped(self) -> bool:
        """Whether the file is a member of a zip archive."""
        return self.container.suffix == ".zip"

    @property
    def fingerprint(self) -> str:
        """Tells whether this is still the same file, without reading it."""
        return f"{self.container.name}:{self.name}:{self.size}:{self.stamp}"

    @contextmanager
    def open(self, depths: Sequence[str] = IMAGE_DEPTHS) -> Iterator["RawRaster"]:
        """Opens the file as a raster.

        Args:
            depths: Kinds of values that will do, as numpy calls them.

        Yields:
            The raster, open within the block.

        Raises:
            UnreadableError: When the file is damaged, no image, or holds other values.
            UserError: When its archive is damaged or encrypted.
        """
        with rasterio.Env(**_STRICT), plain_pixels(), ExitStack() as stack:
            with _reading(self):
                if self.zipped:
                    memory = stack.enter_context(MemoryFile(self.read_bytes()))
                    dataset = stack.enter_context(memory.open())
                else:
                    dataset = stack.enter_context(rasterio.open(self.container / self.name))
            yield RawRaster(self, dataset, depths)

    def read_bytes(self) -> bytes:
        """Reads the whole file.

        Raises:
            UserError: When the archive is damaged or encrypted.
        """
        if not self.zipped:
            return (self.container / self.name).read_bytes()
        with reading_zip(self.container), zipfile.ZipFile(self.container) as archive:
            return archive.read(self.name)

    def transform(self) -> Affine | None:
        """The georeference in a world file beside an archive's member; None without one."""
        for name in self.siblings:
            sibling = RawFile(self.container, name, 0, 0)
            try:
                a, d, b, e, c, f = (float(value) for value in sibling.read_bytes().decode("ascii").split())
            except ValueError as error:
                raise UserError(f"{sibling} is no world file: it must hold six numbers") from error
            # A world file gives the centre of the first pixel, a transform its corner.
            return Affine(a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)
        return None


class RawRaster:
    """An open raster that is read strip by strip, so that no scene needs to fit into memory unpacked.

    Attributes:
        file: Where it comes from.
        dataset: The rasterio dataset.
    """

    STRIP: Final = 1024
    """Rows read at once: whole blocks of every tiling in use, and 18 MB of a scene 6000 pixels wide."""

    def __init__(self, file: RawFile, dataset: Any, depths: Sequence[str]) -> None:  # noqa: ANN401 - rasterio
        self.file = file
        self.dataset = dataset
        kinds = sorted(set(dataset.dtypes))
        if len(kinds) > 1 or kinds[0] not in depths:
            raise UnreadableError(
                f"{file} holds {', '.join(kinds)} values: only {' and '.join(depths)} are read"
            )
        if dataset.height * dataset.width * dataset.count > MAX_MEMBER:
            raise UserError(
                f"{file} is {dataset.width} x {dataset.height} pixels: cut it into smaller scenes"
            )

    def __str__(self) -> str:
        return str(self.file)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.dataset.height, self.dataset.width

    @property
    def depth(self) -> str:
        """Kind of the values, as numpy calls it."""
        return str(self.dataset.dtypes[0])

    @property
    def has_colour_table(self) -> bool:
        """Whether the single band holds not brightness but places in a table of colours."""
        return self.depth == "uint8" and self.dataset.colorinterp == (ColorInterp.palette,)

    @property
    def shown_bands(self) -> tuple[int, ...]:
        """Bands (1-based) of the image as `pixels` gives it, but for opacity."""
        if self.has_colour_table:
            return (1, 2, 3)
        kinds = enumerate(self.dataset.colorinterp, start=1)
        return tuple(band for band, kind in kinds if kind != ColorInterp.alpha)

    def georeference(self) -> dict[str, Any]:
        """Reference system and transform as keyword arguments for a new raster; empty without a transform."""
        transform = self.dataset.transform
        if transform.is_identity:
            transform = self.file.transform()
        return {} if transform is None else {"crs": self.dataset.crs, "transform": transform}

    def strips(self) -> Iterator[tuple[Window, NDArray[Any]]]:
        """Reads the raster from top to bottom.

        Yields:
            The window of each strip and its values, (B, rows, W) with B the number of bands.

        Raises:
            UnreadableError: When the file is damaged.
        """
        height, width = self.shape
        for row in range(0, height, self.STRIP):
            window = Window(0, row, width, min(self.STRIP, height - row))
            with _reading(self.file):
                pixels = self.dataset.read(window=window)
            yield window, pixels

    def pixels(self) -> Iterator[tuple[Window, NDArray[Any]]]:
        """Reads an image from top to bottom; a colour table is looked up.

        Yields:
            The window of each strip and its pixels, (B, rows, W).

        Raises:
            UnreadableError: When the file is damaged.
        """
        if not self.has_colour_table:
            yield from self.strips()
            return
        for window, colours in self.colours():
            yield window, colours.transpose(2, 0, 1)

    def part(self, window: Window, shape: tuple[int, int]) -> NDArray[Any]:
        """Reads a window of an image, reduced for the eye; a colour table is looked up.

        Args:
            window: What to read.
            shape: Rows and columns to return; fewer than the window's are averaged.

        Returns:
            (B, rows, columns), B and the values as `pixels` gives them.

        Raises:
            UnreadableError: When the file is damaged.
        """
        places = self.has_colour_table  # whose mean means nothing
        with _reading(self.file):
            pixels = self.dataset.read(
                window=window,
                out_shape=(self.dataset.count, *shape),
                resampling=Resampling.nearest if places else Resampling.average,
            )
        return self._colour_table()[pixels[0]].transpose(2, 0, 1) if places else np.asarray(pixels)

    def colours(self, *, indices: bool = False) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
        """Reads a reference image from top to bottom.

        A single band is looked up in the file's colour table; without one, value v stands for (v, v, v).

        Args:
            indices: The values mean something themselves: a colour table is for the eye only.

        Yields:
            The window of each strip and its colours, (rows, W, 3) uint8.

        Raises:
            UnreadableError: When the file is damaged.
            UserError: When it has neither one band nor at least three, or more than one with `indices`.
        """
        bands = self.dataset.count
        if bands == 2:
            raise UserError(f"{self} has 2 bands: a reference image has one or three")
        if indices and bands > 1:
            raise UserError(
                f"{self} has {bands} bands, and a mask of class indices has one; the colours of other masks "
                "are given by dataset.classes={NAME: [RED, GREEN, BLUE], ...}"
            )
        table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        if self.has_colour_table and not indices:
            table = self._colour_table()
        for window, pixels in self.strips():
            yield window, table[pixels[0]] if bands == 1 else pixels[:3].transpose(1, 2, 0)

    def _colour_table(self) -> NDArray[np.uint8]:
        """The colour (256, 3) of each value; a value without one stands for its grey."""
        table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        for value, colour in self.dataset.colormap(1).items():
            table[value] = colour[:3]
        return table


@contextmanager
def _reading(file: RawFile) -> Iterator[None]:
    try:
        yield
    except (RasterioError, OSError, ValueError) as error:
        raise UnreadableError(f"{file} is damaged or no image: fetch it again") from error


@contextmanager
def reading_zip(path: Path) -> Iterator[None]:
    """Reports every way in which reading a zip archive fails as one line about that archive."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}): a download cut short? fetch it again") from error
    except (RuntimeError, NotImplementedError) as error:
        folder = path.with_suffix("")
        raise UserError(f"{path} cannot be read ({error}): unpack it by hand to {folder}/") from error
