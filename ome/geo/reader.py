"""The reader of every raster: its pixels, and where something was measured."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import Affine
from rasterio.windows import Window

from ome.errors import UserError
from ome.geo import lossy
from ome.geo.gdal import IMAGE_DRIVERS, SCENE_DRIVERS, complaints, orientation, plain_pixels
from ome.geo.grid import Grid
from ome.geo.jpeg2000 import is_whole
from ome.geo.opacity import is_opacity
from ome.geo.placement import place_of
from ome.geo.sidecars import check_metadata, check_sidecars
from ome.geo.vsi import WITHOUT_HEAD, VsiPath, reach, reading_options

IMAGE_DEPTHS: Final = ("uint8", "uint16")
"""Kinds of values of images; 16 bits are scaled to 8, see `ome.data.scaling`."""

STRIP: Final = 1024
"""Rows that are read at once: whole blocks of every tiling in use, and 18 MB of a scene 6000 pixels wide."""

Strip = tuple[int, int, int, int]
"""Row, column, height and width of a window."""

MAX_VALUES: Final = 1 << 28
"""Values that are read at once at most."""


class UnreadableError(UserError):
    """A file that is damaged, not a raster, or of another depth: a folder may hold several."""


class Raster:
    """An open raster that is read by windows.

    A pixel is valid unless the file says otherwise: by the nodata values of its bands (all of them), an
    internal mask, an opacity band, wherever it stands, transparent colours, or blocks that were never
    written. A single band with a colour table reads as three.

    Attributes:
        name: What messages call it.
        grid: Size and place.
        depth: Kind of the values, as numpy calls it.
        bands: Number of bands as `read` gives them.
        has_colour_table: Whether the file holds places in a table of colours instead of brightness.

    Args:
        source: A file, what GDAL fetches by windows, or its bytes.
        name: What messages call it; None for the path.
        drivers: Formats that are read, by GDAL's names.
        remedy: What to do about a damaged file.
        channels: Bands (1-based) that are looked at: none of them is opacity, whatever the file says.
        nodata: Value of every band where nothing was measured; None for what the file says.
        transform: Place of a file that does not have one itself.

    Raises:
        UnreadableError: The file is damaged, not a raster of these formats, or its bands differ in depth.
        UserError: It does not exist or cannot be reached, is not placed on a grid, or reads files that lie
            elsewhere.
    """

    def __init__(
        self,
        source: Path | VsiPath | bytes,
        *,
        name: str | None = None,
        drivers: Sequence[str] = SCENE_DRIVERS,
        remedy: str = "",
        channels: Sequence[int] = (),
        nodata: float | None = None,
        transform: Affine | None = None,
    ) -> None:
        self.name = str(source) if name is None and not isinstance(source, bytes) else str(name)
        self._remedy = remedy or "copy or download it again"
        self._options: dict[str, str] = {}
        self._channels = tuple(channels)
        self._stack = ExitStack()
        if isinstance(source, Path) and not source.exists():
            raise UserError(f"{self.name} does not exist: {remedy or 'check the path'}")
        start: Path | bytes = b""
        if isinstance(source, VsiPath):
            start = reach(source).start
            self._options, self._remedy = reading_options(), remedy or "try again, or download it"
            drivers = [driver for driver in drivers if driver in IMAGE_DRIVERS]
        else:
            start = source
        self._dataset = self._open(source, drivers)
        dataset = self._dataset
        if isinstance(source, Path):
            if dataset.driver == "JP2OpenJPEG" and not is_whole(source):
                raise UnreadableError(f"{self.name} is damaged, its end is missing: {self._remedy}")
            check_sidecars(source, dataset)
        else:
            check_metadata(self.name, dataset)
        if "JPEG" in drivers and (turned := orientation(start)) != 1:
            raise UserError(
                f"{self.name} is stored rotated (EXIF orientation {turned}): rotate its pixels, e.g. by "
                "mogrify -auto-orient"
            )
        place = place_of(self.name, dataset, transform)
        self.grid = Grid(dataset.height, dataset.width, dataset.crs, place)
        kinds = sorted(set(dataset.dtypes))
        if len(kinds) > 1:
            raise UnreadableError(
                f"{self.name} holds {' and '.join(kinds)} values: bands of one kind are read"
            )
        self.depth: str = kinds[0]
        self.has_colour_table = self.depth == "uint8" and dataset.colorinterp == (ColorInterp.palette,)
        self.bands: int = 3 if self.has_colour_table else dataset.count
        if nodata is not None and not fits(nodata, self.depth):
            raise UserError(
                f"nodata={nodata:g} is no {self.depth} value, as {self.name} holds them: correct it, or "
                "leave it out"
            )
        self.nodata: tuple[float | None, ...] = (
            tuple(dataset.nodatavals) if nodata is None else (nodata,) * dataset.count
        )

    def __str__(self) -> str:
        return self.name

    def __enter__(self) -> "Raster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._stack.close()

    def require(self, depths: Sequence[str] = IMAGE_DEPTHS) -> None:
        """Refuses other kinds of values than these, by numpy's names.

        Raises:
            UnreadableError: The raster holds others.
        """
        if self.depth not in depths:
            raise UnreadableError(
                f"{self.name} holds {self.depth} values, only {' and '.join(depths)} are read: convert it, "
                "e.g. gdal_translate -ot UInt16 -scale IN OUT"
            )

    @cached_property
    def opacity(self) -> int | None:
        """The band (1-based) that says where something was measured; None without."""
        called = (band for band in self._called_opacity if band not in self._channels)
        return next(filter(self._is_opacity, called), None)

    @property
    def image_called_opacity(self) -> int | None:
        """The band that the file calls opacity, although it holds an image; None without."""
        return next((band for band in self._called_opacity if band != self.opacity), None)

    @property
    def shown_bands(self) -> tuple[int, ...]:
        """Bands (1-based) of the image as `read` gives it, but for opacity."""
        return tuple(band for band in range(1, self.bands + 1) if band != self.opacity)

    @cached_property
    def all_valid(self) -> bool:
        """Whether nothing says that a pixel might not have been measured."""
        doubts = (self.opacity, self._has_mask, self._nodata_bands, self._transparent, self._may_be_nan)
        return not any(doubts) and bool(self._written.all())

    def read(self, row: int, column: int, height: int, width: int, bands: Sequence[int] = ()) -> NDArray[Any]:
        """Reads a window inside the raster; a colour table is looked up.

        Args:
            row: Of the window's upper left pixel.
            column: Likewise.
            height: Of the window.
            width: Of the window.
            bands: Bands (1-based) in the order of the result; empty for all.

        Returns:
            (B, height, width), of the raster's depth.

        Raises:
            UnreadableError: The file is damaged there.
        """
        window = Window(column, row, width, height)
        if not self.has_colour_table:
            return self._read(window, indexes=list(bands) or None)
        colours: NDArray[Any] = self._colours[self._read(window, indexes=1)].transpose(2, 0, 1)
        return colours[[band - 1 for band in bands]] if bands else colours

    def values(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        """Reads the first band as it is stored, (height, width); see `read`."""
        return self._read(Window(column, row, width, height), indexes=1)

    def reduced(self, row: int, column: int, height: int, width: int, shape: tuple[int, int]) -> NDArray[Any]:
        """Reads a window as `read` does, averaged to fewer rows and columns, for the eye."""
        window = Window(column, row, width, height)
        if self.has_colour_table:  # the mean of places in a table means nothing
            places = self._read(window, indexes=1, out_shape=shape, resampling=Resampling.nearest)
            colours: NDArray[Any] = self._colours[places].transpose(2, 0, 1)
            return colours
        return self._read(window, out_shape=(self.bands, *shape), resampling=Resampling.average)

    def valid(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """Tells where something was measured, (height, width); see the class."""
        window = Window(column, row, width, height)
        valid = np.ones((height, width), dtype=bool)
        if self._has_mask:
            valid &= self._reading(window, lambda: self._dataset.read_masks(1, window=window)) > 0
        if self.opacity is not None:
            valid &= self._read(window, indexes=self.opacity) > 0
        if not self._written.all():
            down, across = self._dataset.block_shapes[0]
            rows, columns = np.arange(row, row + height) // down, np.arange(column, column + width) // across
            valid &= self._written[np.ix_(rows, columns)]
        if self._transparent:
            valid &= ~np.isin(self._read(window, indexes=1), self._transparent)
        if self._nodata_bands:
            valid &= ~self._is_nodata(row, column, height, width)
        if self._may_be_nan:
            valid &= ~np.isnan(self._read(window)).all(axis=0)
        return valid

    def strips(self) -> Iterator[Strip]:
        """Windows as wide as the raster, from top to bottom, as `read` and `valid` take them."""
        return strips_of(self.grid, self.bands)

    @cached_property
    def compression(self) -> str:
        """How the pixels are packed, such as JPEG; the driver's name where the file does not say."""
        packed = self._dataset.compression
        return packed.name.upper() if packed is not None else str(self._dataset.driver)

    def tags(self) -> dict[str, str]:
        """The file's tags."""
        return dict(self._dataset.tags())

    @cached_property
    def _called_opacity(self) -> list[int]:
        kinds = enumerate(self._dataset.colorinterp, start=1)
        return [band for band, kind in kinds if kind == ColorInterp.alpha]

    @cached_property
    def _written(self) -> NDArray[np.bool_]:
        """Which blocks (rows, columns) a GeoTIFF holds: a sparse one lacks those nobody wrote."""
        dataset, (down, across) = self._dataset, self._dataset.block_shapes[0]
        shape = -(-dataset.height // down), -(-dataset.width // across)
        if dataset.driver != "GTiff":
            return np.ones((1, 1), dtype=bool)
        bands = dataset.indexes if dataset.interleaving == Interleaving.band else (1,)
        with self._listening():
            there = [
                any(dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band) for band in bands)
                for y in range(shape[0])
                for x in range(shape[1])
            ]
        return np.array(there).reshape(shape)

    @cached_property
    def _transparent(self) -> list[int]:
        """Values of a PNG whose colours are transparent; GDAL makes a single one its nodata value."""
        if not self.has_colour_table or self._dataset.driver != "PNG":
            return []
        table = self._dataset.colormap(1)
        empty = [value for value, colour in table.items() if colour[3] == 0]
        return empty if len(empty) > 1 else []

    @cached_property
    def _has_mask(self) -> bool:
        flags = self._dataset.mask_flag_enums[0]
        return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    @cached_property
    def _nodata_bands(self) -> list[int]:
        """Bands of the image; empty where one of them has no nodata value."""
        bands = [1] if self.has_colour_table else list(self.shown_bands)
        return [] if any(self.nodata[band - 1] is None for band in bands) else bands

    @property
    def _may_be_nan(self) -> bool:
        return np.dtype(self.depth).kind in "fc"

    def _is_nodata(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """Where all bands of the image hold their nodata value, but for what loss has done to it."""
        blurred = self.depth == "uint8" and "JPEG" in self.compression
        margin = lossy.MARGIN if blurred else 0
        top, left = max(0, row - margin), max(0, column - margin)
        bottom = min(self.grid.height, row + height + margin)
        right = min(self.grid.width, column + width + margin)
        pixels = self._read(Window(left, top, right - left, bottom - top), indexes=self._nodata_bands)
        values = [self.nodata[band - 1] for band in self._nodata_bands]
        empty = np.all([_equals(*pair) for pair in zip(pixels, values, strict=True)], axis=0)
        if blurred and empty.any():
            away = np.abs(pixels.astype(np.float32) - np.array(values, np.float32)[:, None, None])
            empty = lossy.with_blurred(empty, (away <= lossy.BLURRED).all(axis=0))
        return np.asarray(empty[row - top :, column - left :][:height, :width])

    @cached_property
    def _colours(self) -> NDArray[np.uint8]:
        """The colour (256, 3) of each value; a value without one stands for its grey."""
        table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        for value, colour in self._dataset.colormap(1).items():
            table[value] = colour[:3]
        return table

    def _is_opacity(self, band: int) -> bool:
        """Whether a band is what GDAL calls it, in nine windows spread over the raster; a PNG knows."""
        if self._dataset.driver == "PNG":
            return True
        height, width = (min(256, side) for side in (self.grid.height, self.grid.width))
        windows = [
            (part * (self.grid.height - height) // 2, across * (self.grid.width - width) // 2)
            for part in range(3)
            for across in range(3)
        ]
        pixels = np.concatenate(
            [self.read(*start, height, width).reshape(self.bands, -1) for start in dict.fromkeys(windows)], 1
        )
        called = [other - 1 for other in self._called_opacity]
        return is_opacity(pixels[band - 1], np.delete(pixels, called, axis=0))

    def _open(self, source: Path | VsiPath | bytes, drivers: Sequence[str]) -> Any:  # noqa: ANN401 - rasterio
        try:
            with plain_pixels(), rasterio.Env(**self._options):
                if isinstance(source, bytes):
                    source = self._stack.enter_context(MemoryFile(source)).name
                path = source.path if isinstance(source, VsiPath) else str(source)
                return self._stack.enter_context(DatasetReader(path, driver=list(drivers)))
        except (RasterioError, OSError, ValueError) as error:
            self.close()
            if "HTTP response code" in str(error) and not self._options.keys() >= WITHOUT_HEAD.keys():
                self._options |= WITHOUT_HEAD
                return self._open(source, drivers)
            formats = ", ".join(drivers)
            if isinstance(source, VsiPath):
                raise UnreadableError(
                    f"{self.name} cannot be opened as {formats} ({error}): check the address, or download it"
                ) from error
            raise UnreadableError(
                f"{self.name} is damaged or not a raster ({formats}): {self._remedy}; gdal_translate IN OUT "
                "writes other formats to a GeoTIFF"
            ) from error

    def _read(self, window: Window, **options: Any) -> NDArray[Any]:  # noqa: ANN401 - rasterio's own
        return self._reading(window, lambda: self._dataset.read(window=window, **options))

    def _reading(self, window: Window, read: Any) -> NDArray[Any]:  # noqa: ANN401
        complaints.forget()
        try:
            with self._listening():
                pixels: NDArray[Any] = read()
        except (RasterioError, OSError, ValueError) as error:
            raise self._damaged(window) from error
        if complaints.heard:
            raise self._damaged(window)
        return pixels

    def _listening(self) -> AbstractContextManager[object]:
        """Where GDAL has its options, and its warnings of damaged JPEG data reach `complaints`."""
        needed = self._options or "JPEG" in self.compression
        return rasterio.Env(**self._options) if needed else nullcontext()

    def _damaged(self, window: Window) -> UnreadableError:
        rows = f"rows {window.row_off}..{window.row_off + window.height - 1}"
        columns = f"columns {window.col_off}..{window.col_off + window.width - 1}"
        return UnreadableError(f"{self.name} is damaged at {rows}, {columns}: {self._remedy}")


def strips_of(grid: Grid, bands: int) -> Iterator[Strip]:
    """Windows of `STRIP` rows, fewer of a wide raster."""
    rows = max(1, min(STRIP, MAX_VALUES // (grid.width * bands)))
    for row in range(0, grid.height, rows):
        yield row, 0, min(rows, grid.height - row), grid.width


def fits(value: float, depth: str) -> bool:
    """Whether pixels of a depth can hold a value."""
    kind = np.dtype(depth)
    if kind.kind not in "iu":
        return True
    limits = np.iinfo(kind)
    return limits.min <= value <= limits.max and float(value).is_integer()


def _equals(pixels: NDArray[Any], value: float | None) -> NDArray[np.bool_]:
    nan = value is not None and np.isnan(value)
    return np.asarray(np.isnan(pixels) if nan else pixels == value)
