"""The reader of every raster: its pixels, and which of them are valid."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from ome.geo import band_labels
from ome.geo.band_labels import BAND_COLOURS, depth_fault
from ome.geo.gdal import SCENE_DRIVERS
from ome.geo.grid import grid_of
from ome.geo.opacity import is_opacity
from ome.geo.raster_file import RasterFile, UnreadableError
from ome.geo.strips import Strip, sample_of, strips_of
from ome.geo.validity import Validity
from ome.geo.vsi import VsiPath

IMAGE_DEPTHS: Final = ("uint8", "uint16")
"""Data types of images; 16 bits are scaled to 8, see `ome.data.scaling`."""


class Raster:
    """An open raster that is read by windows.

    A pixel is invalid where all its bands hold their nodata value, and where a mask (of the file, or those of
    all bands), an opacity band (of any position), a transparent colour or a block that was never written says
    so. A band with a colour table is read as three bands; beside it there may be opacity alone.

    Attributes:
        name: Its name in error messages.
        grid: Size and georeference.
        depth: Data type of the values, by numpy's name.
        bands: Number of bands that `read` returns.
        has_colour_table: Whether it holds indices into a colour table: `colours`, (256, 3) uint8, else None.
        nodata: Nodata value of each band; None for a band without.
        by_windows: Whether a window is read without all that is before it in the file.

    Args:
        source: A local file, a remote or archived one that GDAL reads by windows, or bytes.
        name: Its name in error messages; None for the path.
        drivers: Allowed formats, by GDAL's driver names.
        remedy: Advice for error messages about a damaged file.
        channels: Bands (1-based) in use: none of them counts as opacity, whatever the file says.
        nodata: Nodata value of every band; None for the values in the file.
        transform: Pixel to world coordinates where the file has none.

    Raises:
        UnreadableError: The file is damaged, not a raster of these formats, or its bands differ in depth.
        UserError: It does not exist or cannot be reached, is not placed on a grid, or refers to other files.
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
        self._file = RasterFile(source, name, drivers, remedy)
        self.name, dataset = self._file.name, self._file.dataset
        self.grid = grid_of(self.name, dataset, transform)
        self.depth, self.by_windows = self._file.depth, dataset.driver not in {"PNG", "JPEG"}
        self.has_colour_table = self.depth == "uint8" and band_labels.is_indexed(dataset)
        self._grey_step = band_labels.grey_step(dataset)
        self.bands: int = 3 if self.has_colour_table else dataset.count
        self._labelled_opacity = [] if self.has_colour_table else band_labels.labelled_opacity(dataset)
        self.colours = band_labels.colour_table(dataset) if self.has_colour_table else None
        self._validity = Validity(self._file, nodata, has_colour_table=self.has_colour_table)
        self.nodata = self._validity.nodata

    def __str__(self) -> str:
        return self.name

    def __enter__(self) -> "Raster":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def require(self, depths: Sequence[str] = IMAGE_DEPTHS) -> None:
        """Checks that the values are those of an image, or of a class map, of one of the `depths`.

        Raises:
            UnreadableError: The raster has another data type, is a negative, or has a colour table that is
                not applied.
        """
        known = self.depth in depths
        fault = band_labels.colour_fault(self._file.dataset) if known else depth_fault(self.depth, depths)
        if fault:
            raise UnreadableError(f"{self.name} holds {fault}")

    @cached_property
    def opacity(self) -> int | None:
        """The opacity band (1-based), which tells where pixels are valid; None without."""
        labelled = (band for band in self._labelled_opacity if band not in self._channels)
        return next(filter(self._is_opacity, labelled), None)

    @property
    def mislabelled_opacity(self) -> int | None:
        """The band that the file labels opacity although it holds an image; None without."""
        return next((band for band in self._labelled_opacity if band != self.opacity), None)

    @property
    def lost_nodata(self) -> float | None:
        """See `Validity.lost_nodata`."""
        return self._validity.lost_nodata

    @property
    def shown_bands(self) -> tuple[int, ...]:
        """Bands (1-based) of the image as `read` returns it, without opacity."""
        return tuple(band for band in range(1, self.bands + 1) if band != self.opacity)

    @cached_property
    def band_colours(self) -> tuple[str, ...]:
        """One of `BAND_COLOURS` for each band, by its description or its label; empty if unknown."""
        if self.has_colour_table:
            return BAND_COLOURS[:3]
        return band_labels.labelled_colours(self._file.dataset)

    @cached_property
    def all_valid(self) -> bool:
        """Whether every pixel is valid for certain, without reading any."""
        return self.opacity is None and self._validity.is_everywhere(self.shown_bands)

    def read(self, row: int, column: int, height: int, width: int, bands: Sequence[int] = ()) -> NDArray[Any]:
        """Reads a window inside the raster, (B, height, width) of its depth; a colour table is applied.

        Values of 1, 2 and 4 bits are scaled to 0..255, as image formats define them; see also `values`.
        `bands` (1-based) are in the order of the result; empty for all.

        Raises:
            UnreadableError: The file is damaged there.
        """
        window = Window(column, row, width, height)
        if self.colours is None:
            return self._white(self._file.read(window, indexes=list(bands) or None))
        colours: NDArray[Any] = self.colours[self._file.read(window, indexes=1)].transpose(2, 0, 1)
        return colours[[band - 1 for band in bands]] if bands else colours

    def values(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        """Reads the first band as it is stored, (height, width); see `read`."""
        return self._file.read(Window(column, row, width, height), indexes=1)

    def reduced(self, row: int, column: int, height: int, width: int, shape: tuple[int, int]) -> NDArray[Any]:
        """Reads a window as `read` does, averaged to fewer rows and columns, for display."""
        window = Window(column, row, width, height)
        if self.colours is not None:  # a mean of indices is meaningless
            indices = self._file.read(window, indexes=1, out_shape=shape, resampling=Resampling.nearest)
            colours: NDArray[Any] = self.colours[indices].transpose(2, 0, 1)
            return colours
        means = self._file.read(window, out_shape=(self.bands, *shape), resampling=Resampling.average)
        return self._white(means)

    def valid(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """Reads which pixels of a window are valid, (height, width); see the class."""
        window = Window(column, row, width, height)
        valid = self._validity.valid(window, self.shown_bands)
        if self.opacity is not None:
            valid &= self._file.read(window, indexes=self.opacity) > 0
        return valid

    def strips(self) -> Iterator[Strip]:
        """Windows as wide as the raster, from top to bottom, as `read` and `valid` take them."""
        return strips_of(self.grid, self.bands)

    @property
    def mask_fault(self) -> str:
        """Why the values of a mask may not be the classes that were meant, with a remedy; or empty."""
        return band_labels.mask_fault(self._file.dataset, self._file.compression)

    def tags(self) -> dict[str, str]:
        """The file's tags."""
        return dict(self._file.dataset.tags())

    def _white(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return pixels if self._grey_step == 1 else pixels * np.uint8(self._grey_step)

    def _is_opacity(self, band: int) -> bool:
        """Whether a band labelled alpha is opacity, judged by nine windows; that of a PNG always is."""
        if self._file.dataset.driver == "PNG":
            return True
        sample = [self.read(*window).reshape(self.bands, -1) for window in sample_of(self.grid)]
        pixels = np.concatenate(sample, axis=1)
        return is_opacity(pixels[band - 1], np.delete(pixels, np.subtract(self._labelled_opacity, 1), axis=0))
