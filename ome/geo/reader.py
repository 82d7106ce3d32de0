"""The reader of every raster: its pixels, and where something was measured."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from ome.errors import UserError
from ome.geo.gdal import SCENE_DRIVERS
from ome.geo.grid import Grid
from ome.geo.opacity import is_opacity
from ome.geo.opened import OpenedFile, UnreadableError
from ome.geo.placement import place_of
from ome.geo.validity import Validity, fits
from ome.geo.vsi import VsiPath

IMAGE_DEPTHS: Final = ("uint8", "uint16")
"""Kinds of values of images; 16 bits are scaled to 8, see `ome.data.scaling`."""

STRIP: Final = 1024
"""Rows that are read at once: whole blocks of every tiling in use, and 18 MB of a scene 6000 pixels wide."""

Strip = tuple[int, int, int, int]
"""Row, column, height and width of a window."""

MAX_VALUES: Final = 1 << 28
"""Values that are read at once at most."""


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
        self._channels = tuple(channels)
        self._file = OpenedFile(source, name, drivers, remedy)
        self.name, dataset = self._file.name, self._file.dataset
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
        self._validity = Validity(self._file, self.nodata, has_colour_table=self.has_colour_table)

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
        self._file.close()

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
        return self.opacity is None and self._validity.is_everywhere(self.shown_bands)

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
            return self._file.read(window, indexes=list(bands) or None)
        colours: NDArray[Any] = self._colours[self._file.read(window, indexes=1)].transpose(2, 0, 1)
        return colours[[band - 1 for band in bands]] if bands else colours

    def values(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        """Reads the first band as it is stored, (height, width); see `read`."""
        return self._file.read(Window(column, row, width, height), indexes=1)

    def reduced(self, row: int, column: int, height: int, width: int, shape: tuple[int, int]) -> NDArray[Any]:
        """Reads a window as `read` does, averaged to fewer rows and columns, for the eye."""
        window = Window(column, row, width, height)
        if self.has_colour_table:  # the mean of places in a table means nothing
            places = self._file.read(window, indexes=1, out_shape=shape, resampling=Resampling.nearest)
            colours: NDArray[Any] = self._colours[places].transpose(2, 0, 1)
            return colours
        return self._file.read(window, out_shape=(self.bands, *shape), resampling=Resampling.average)

    def valid(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """Tells where something was measured, (height, width); see the class."""
        window = Window(column, row, width, height)
        valid = self._validity.valid(window, self.shown_bands)
        if self.opacity is not None:
            valid &= self._file.read(window, indexes=self.opacity) > 0
        return valid

    def strips(self) -> Iterator[Strip]:
        """Windows as wide as the raster, from top to bottom, as `read` and `valid` take them."""
        return strips_of(self.grid, self.bands)

    @property
    def compression(self) -> str:
        """How the pixels are packed, such as JPEG; the driver's name where the file does not say."""
        return self._file.compression

    def tags(self) -> dict[str, str]:
        """The file's tags."""
        return dict(self._file.dataset.tags())

    @cached_property
    def _called_opacity(self) -> list[int]:
        kinds = enumerate(self._file.dataset.colorinterp, start=1)
        return [band for band, kind in kinds if kind == ColorInterp.alpha]

    @cached_property
    def _colours(self) -> NDArray[np.uint8]:
        """The colour (256, 3) of each value; a value without one stands for its grey."""
        table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        for value, colour in self._file.dataset.colormap(1).items():
            table[value] = colour[:3]
        return table

    def _is_opacity(self, band: int) -> bool:
        """Whether a band is what GDAL calls it, in nine windows spread over the raster; a PNG knows."""
        if self._file.dataset.driver == "PNG":
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


def strips_of(grid: Grid, bands: int) -> Iterator[Strip]:
    """Windows of `STRIP` rows, fewer of a wide raster."""
    rows = max(1, min(STRIP, MAX_VALUES // (grid.width * bands)))
    for row in range(0, grid.height, rows):
        yield row, 0, min(rows, grid.height - row), grid.width
