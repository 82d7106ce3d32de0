"""Where pixels are valid by everything in a file but the opacity beside image bands."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Interleaving, MaskFlags
from rasterio.io import MemoryFile
from rasterio.shutil import copy
from rasterio.windows import Window

from ome.errors import UserError
from ome.geo import lossy
from ome.geo.raster_file import RasterFile

_KEEP: Final = ("GTiff", "VRT")
"""Formats that may declare a nodata value which no pixel can have."""


class Validity:
    """Nodata values, masks, transparent colours, nan, and blocks that were never written.

    Args:
        file: The file.
        nodata: Nodata value of every band; None for the values in the file.
        has_colour_table: Whether the file holds indices into a colour table.

    Attributes:
        nodata: Nodata value of each band; None for a band without.

    Raises:
        UserError: No pixel of this data type can have the nodata value.
    """

    def __init__(self, file: RasterFile, nodata: float | None, *, has_colour_table: bool) -> None:
        dataset, depth = file.dataset, file.dataset.dtypes[0]
        if nodata is not None and not fits(nodata, depth):
            raise UserError(
                f"nodata={nodata:g} cannot be a pixel of {file.name}, which holds {depth} values: "
                "correct it, or leave it out"
            )
        self._file = file
        self.nodata: tuple[float | None, ...] = (
            tuple(dataset.nodatavals) if nodata is None else (nodata,) * dataset.count
        )
        self._has_colour_table = has_colour_table
        self._opacity = list(dataset.indexes[1:]) if has_colour_table else []
        self._kind = np.dtype(depth)
        self._mask_flags: Sequence[Sequence[MaskFlags]] = dataset.mask_flag_enums  # empty for one of its own
        self._may_be_nan = self._kind.kind in "fc"
        self._losses: dict[tuple[int, ...], lossy.Loss | None] = {}

    @cached_property
    def lost_nodata(self) -> float | None:
        """A nodata value that the file declares, but no pixel can have, which rasterio passes over."""
        if None not in self.nodata or self._kind.kind not in "iu" or self._file.dataset.driver not in _KEEP:
            return None
        with MemoryFile(ext=".vrt") as description:
            copy(self._file.dataset, description.name, driver="VRT")  # a description keeps the value
            text = description.read().decode(errors="replace")  # metadata may have any bytes
        declared = ET.fromstring(text).iter("NoDataValue")  # noqa: S314 - GDAL's own
        return next((float(value.text or "nan") for value in declared), None)

    def is_everywhere(self, bands: Sequence[int]) -> bool:
        """Whether every pixel is valid for certain, without reading any; see `valid`."""
        sources = (self._masked(bands), self._bands_with_nodata(bands), self._transparent, self._opacity)
        return not any(sources) and not self._may_be_nan and bool(self._written.all())

    def valid(self, window: Window, bands: Sequence[int]) -> NDArray[np.bool_]:
        """Reads the validity of a window.

        Args:
            window: Inside the raster.
            bands: Bands (1-based) of the image; a pixel is nodata where all of them are.

        Returns:
            (height, width), True where valid.

        Raises:
            UnreadableError: The file is damaged there.
        """
        dataset, valid = self._file.dataset, np.ones((window.height, window.width), dtype=bool)
        if masked := self._masked(bands):
            masks = self._file.checked(window, lambda: dataset.read_masks(masked, window=window))
            valid &= (masks > 0).any(axis=0)
        if not self._written.all():
            down, across = dataset.block_shapes[0]
            rows, columns = (
                np.arange(start, start + length) // size
                for start, length, size in (
                    (window.row_off, window.height, down),
                    (window.col_off, window.width, across),
                )
            )
            valid &= self._written[np.ix_(rows, columns)]
        if self._transparent:
            valid &= ~np.isin(self._file.read(window, indexes=1), self._transparent)
        if self._opacity:
            valid &= (self._file.read(window, indexes=self._opacity) > 0).all(axis=0)
        if with_nodata := self._bands_with_nodata(bands):
            valid &= ~self._is_nodata(window, with_nodata)
        if self._may_be_nan:
            valid &= ~np.isnan(self._file.read(window)).all(axis=0)
        return valid

    @cached_property
    def _written(self) -> NDArray[np.bool_]:
        """Which blocks (rows, columns) a GeoTIFF holds: a sparse file omits unwritten blocks."""
        dataset, (down, across) = self._file.dataset, self._file.dataset.block_shapes[0]
        shape = -(-dataset.height // down), -(-dataset.width // across)
        if dataset.driver != "GTiff":
            return np.ones((1, 1), dtype=bool)
        bands = dataset.indexes if dataset.interleaving == Interleaving.band else (1,)
        with self._file.environment():
            written = [
                any(dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band) for band in bands)
                for y in range(shape[0])
                for x in range(shape[1])
            ]
        return np.array(written).reshape(shape)

    @cached_property
    def _transparent(self) -> list[int]:
        """Values of a PNG whose colours are transparent; GDAL makes a single one its nodata value."""
        if not self._has_colour_table or self._file.dataset.driver != "PNG":
            return []
        table = self._file.dataset.colormap(1)
        empty = [value for value, colour in table.items() if colour[3] == 0]
        return empty if len(empty) > 1 else []

    def _masked(self, bands: Sequence[int]) -> list[int]:
        """The bands whose masks tell where pixels are valid: the first, or all if each has its own."""
        flags = self._mask_flags
        if MaskFlags.per_dataset in flags[0]:
            return [] if MaskFlags.alpha in flags[0] else [1]
        checked = [1] if self._has_colour_table else list(bands)
        return checked if all(flags[band - 1] == [] for band in checked) else []

    def _bands_with_nodata(self, bands: Sequence[int]) -> list[int]:
        """The bands of the image; empty where one of them has no nodata value."""
        checked = [1] if self._has_colour_table else list(bands)
        return [] if any(self.nodata[band - 1] is None for band in checked) else checked

    def _is_nodata(self, window: Window, bands: Sequence[int]) -> NDArray[np.bool_]:
        """Where all bands of the image hold their nodata value, allowing for lossy compression."""
        dataset, (row, column) = self._file.dataset, (window.row_off, window.col_off)
        values = [self.nodata[band - 1] for band in bands]
        loss = self._loss(tuple(bands))
        margin = lossy.MARGIN if loss else 0
        top, left = max(0, row - margin), max(0, column - margin)
        bottom = min(dataset.height, row + window.height + margin)
        right = min(dataset.width, column + window.width + margin)
        pixels = self._file.read(Window(left, top, right - left, bottom - top), indexes=list(bands))
        empty = np.all([_equals(*pair) for pair in zip(pixels, values, strict=True)], axis=0)
        if loss:
            empty = lossy.with_blurred(empty, pixels, values, loss)
        return np.asarray(empty[row - top :, column - left :][: window.height, : window.width])

    def _loss(self, bands: tuple[int, ...]) -> lossy.Loss | None:
        """How far lossy compression moves nodata in these bands; found once, as it reads the whole image."""
        if bands not in self._losses:
            self._losses[bands] = lossy.loss_of(self._file, bands, [self.nodata[band - 1] for band in bands])
        return self._losses[bands]


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
