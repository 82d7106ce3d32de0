"""A scene that was not prepared, read by windows as if it had been."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ome.data.scaling import Limits, byte_tables
from ome.data.scenes import plain_pixels
from ome.errors import UserError
from ome.geo.cog import Grid
from ome.progress import track

DEPTHS: Final = ("uint8", "uint16")

STRIP: Final = 512
"""Rows that are read at a time to find the limits of 16-bit values."""


class UnseenScene:
    """An open raster of 8 or 16 bits; see `open_unseen`.

    Attributes:
        path: The file.
        grid: Its size and place.
    """

    def __init__(self, dataset: Any, path: Path, channels: Sequence[int], limits: Limits | None) -> None:  # noqa: ANN401 - rasterio
        self.path = path
        self.grid = Grid(dataset.height, dataset.width, dataset.crs, dataset.transform)
        self._dataset = dataset
        self._channels = list(channels)
        self._tables: NDArray[np.uint8] | None = None
        kinds = sorted(set(dataset.dtypes))
        if len(kinds) > 1 or kinds[0] not in DEPTHS:
            raise UserError(
                f"{path} holds {', '.join(kinds)} values, only uint8 and uint16 are read: convert it, "
                "e.g. gdal_translate -ot UInt16 -scale IN OUT"
            )
        self._colours: NDArray[np.uint8] | None = None
        bands = dataset.count
        if kinds == ["uint8"] and dataset.colorinterp == (ColorInterp.palette,):
            self._colours, bands = _colour_table(dataset), 3
        if not all(1 <= channel <= bands for channel in channels):
            raise UserError(
                f"{path} has {bands} bands, and the network takes the bands {self._channels}: choose as many "
                "of them in the network's order, e.g. dataset.channels=[1,2,3]"
            )
        # GDAL takes the fourth band of many an image for opacity that is infrared.
        kinds_of_bands = enumerate(dataset.colorinterp, start=1)
        opacity_is_seen = any(kind == ColorInterp.alpha and band in channels for band, kind in kinds_of_bands)
        self._all_valid = opacity_is_seen or all(
            flags == [MaskFlags.all_valid] for flags in dataset.mask_flag_enums
        )
        if kinds == ["uint16"]:
            chosen = tuple(dataset.nodatavals[channel - 1] for channel in channels)
            self._tables = byte_tables(self._strips(), chosen, limits)

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[np.uint8]:
        """Reads (height, width, channels) uint8 from a window inside the scene.

        Raises:
            UserError: The file is damaged there.
        """
        window = Window(column, row, width, height)
        if self._colours is not None:
            looked_up = self._colours[self._read(window, 1)]
            return np.ascontiguousarray(looked_up[..., [channel - 1 for channel in self._channels]])
        pixels = self._read(window, self._channels)
        if self._tables is not None:
            tables = zip(self._tables, pixels, strict=True)
            return np.stack([table[values] for table, values in tables], axis=-1)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    def valid(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """Tells where something was measured, (height, width): by nodata values, opacity or a mask band."""
        if self._all_valid:
            return np.ones((height, width), dtype=bool)
        window = Window(column, row, width, height)
        with self._reporting(window):
            mask: NDArray[np.bool_] = self._dataset.dataset_mask(window=window) > 0
        return mask

    def is_empty(self, row: int, column: int, height: int, width: int) -> bool:
        """Whether nothing was measured in a window."""
        return not (self._all_valid or self.valid(row, column, height, width).any())

    def _strips(self) -> Iterator[NDArray[np.uint16]]:
        rows = range(0, self.grid.height, STRIP)
        for row in track(rows, "range of the 16-bit values, strips", len(rows)):
            height = min(STRIP, self.grid.height - row)
            pixels = self._read(Window(0, row, self.grid.width, height), self._channels)
            yield pixels[:, self.valid(row, 0, height, self.grid.width)]

    def _read(self, window: Window, bands: int | list[int]) -> NDArray[Any]:
        with self._reporting(window):
            pixels: NDArray[Any] = self._dataset.read(bands, window=window)
        return pixels

    @contextmanager
    def _reporting(self, window: Window) -> Iterator[None]:
        try:
            yield
        except (RasterioError, OSError) as error:
            where = f"rows {window.row_off}+{window.height}, columns {window.col_off}+{window.width}"
            raise UserError(f"{self.path} is damaged at {where}: copy or download it again") from error


@contextmanager
def open_unseen(path: Path, channels: Sequence[int], limits: Limits | None) -> Iterator[UnseenScene]:
    """Opens any raster that GDAL reads.

    Args:
        path: The file.
        channels: Bands to read, 1-based, in the order in which the network knows them.
        limits: Values of a 16-bit scene that become 0 and 255; None for percentiles of each of its own bands,
            as scenes are prepared.

    Yields:
        The scene; closed when the block ends.

    Raises:
        UserError: The file is missing or no raster, is neither 8- nor 16-bit, or lacks a band.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: check the path")
    with plain_pixels():
        try:
            dataset = rasterio.open(path)
        except RasterioError as error:
            raise UserError(f"{path} is no raster that GDAL can read: check the path") from error
        with dataset:
            yield UnseenScene(dataset, path, channels, limits)


def _colour_table(dataset: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - rasterio is untyped
    table = np.zeros((256, 3), dtype=np.uint8)
    for value, colour in dataset.colormap(1).items():
        table[value] = colour[:3]
    return table
