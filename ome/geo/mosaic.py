"""A folder of rasters that lie on one grid, read as one raster."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from ome.errors import UserError
from ome.geo.gdal import IMAGE_DRIVERS
from ome.geo.grid import OFF_GRID, Grid
from ome.geo.reader import IMAGE_DEPTHS, Raster
from ome.geo.strips import Strip, strips_of

MANY_PIXELS: Final = 10**9
"""Largest grid that its rasters may cover as little as they like."""

MOST_EMPTY: Final = 100
"""Largest ratio of the pixels of a larger grid to those of its rasters."""

MAX_OPEN: Final = 64
"""Largest number of files kept open."""


class Mosaic:
    """Rasters on one grid as a single one, with the interface of `Raster`.

    A pixel is valid where it is valid in one of the rasters. Where they overlap, the last one wins.

    Attributes:
        name: Its name in error messages.
        grid: Size and georeference.
        depth: Data type of the values, by numpy's name.
        bands: Number of bands.
        nodata: Nodata value of each band.
        band_colours: See `Raster.band_colours`; of the first raster.
        lost_nodata: See `Validity.lost_nodata`; of the first raster.
        all_valid: False: validity must always be read.

    Args:
        rasters: Files of one coordinate reference system (or all without one), pixel size, depth and number
            of bands.
        name: Name of the mosaic in error messages.
        channels: Bands in use, see `Raster`.
        nodata: Nodata value, see `Raster`.

    Raises:
        UserError: A raster cannot be read, has no georeference, or does not fit the first one; or rasters lie
            too far apart.
    """

    all_valid: Final = False

    def __init__(
        self, rasters: Sequence[Path], name: str, channels: Sequence[int] = (), nodata: float | None = None
    ) -> None:
        self.name, self._paths = name, list(rasters)
        self._options: dict[str, Any] = {"channels": channels, "nodata": nodata, "drivers": IMAGE_DRIVERS}
        self._open: OrderedDict[int, Raster] = OrderedDict()
        first = self._raster(0)
        self.depth, self.bands, self.nodata = first.depth, first.bands, first.nodata
        self.band_colours, self.lost_nodata = first.band_colours, first.lost_nodata
        grids = [self._checked(number, first).grid for number in range(len(self._paths))]
        offsets = [_offset(grids[0].transform, grid.transform) for grid in grids]
        left, top = (round(min(offset[axis] for offset in offsets)) for axis in (0, 1))
        self._left = np.array([round(x) - left for x, _ in offsets])
        self._top = np.array([round(y) - top for _, y in offsets])
        self._right = self._left + [grid.width for grid in grids]
        self._bottom = self._top + [grid.height for grid in grids]
        place = grids[0].transform * Affine.translation(left, top)
        self.grid = Grid(int(self._bottom.max()), int(self._right.max()), grids[0].crs, place)
        covered, pixels = sum(grid.height * grid.width for grid in grids), self.grid.height * self.grid.width
        if pixels > max(MANY_PIXELS, MOST_EMPTY * covered):
            raise UserError(
                f"{name}: its {len(grids)} rasters lie far apart, on a grid of {self.grid.width} x "
                f"{self.grid.height} pixels that they hardly cover: map each, by a list of scenes or a "
                f"pattern such as '{name}/*.tif', or correct the georeference of those in the wrong place"
            )

    def __str__(self) -> str:
        return self.name

    def __enter__(self) -> "Mosaic":
        return self

    def __exit__(self, *error: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def require(self, depths: Sequence[str] = IMAGE_DEPTHS) -> None:
        """See `Raster.require`; all rasters are known to be images."""
        self._raster(0).require(depths)

    def read(self, row: int, column: int, height: int, width: int, bands: Sequence[int] = ()) -> NDArray[Any]:
        """See `Raster.read`; 0 where no raster is valid."""
        pixels = np.zeros((len(bands) or self.bands, height, width), dtype=self.depth)
        for raster, window, place in self._parts(row, column, height, width):
            part, valid = raster.read(*window, bands), raster.valid(*window)
            pixels[:, *place] = np.where(valid, part, pixels[:, *place])
        return pixels

    def valid(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """See `Raster.valid`."""
        valid = np.zeros((height, width), dtype=bool)
        for raster, window, place in self._parts(row, column, height, width):
            valid[place] |= raster.valid(*window)
        return valid

    @property
    def mislabelled_opacity(self) -> int | None:
        """See `Raster.mislabelled_opacity`; of the first raster."""
        return self._raster(0).mislabelled_opacity

    @property
    def shown_bands(self) -> tuple[int, ...]:
        """See `Raster.shown_bands`; of the first raster."""
        return self._raster(0).shown_bands

    def strips(self) -> Iterator[Strip]:
        """See `Raster.strips`."""
        return strips_of(self.grid, self.bands)

    def _parts(
        self, row: int, column: int, height: int, width: int
    ) -> Iterator[tuple[Raster, tuple[int, int, int, int], tuple[slice, slice]]]:
        """The rasters that overlap a window, each with the overlap in its own pixels and in the window's."""
        inside = (self._top < row + height) & (self._bottom > row)
        inside &= (self._left < column + width) & (self._right > column)
        for number in np.flatnonzero(inside).tolist():
            top, bottom = max(self._top[number], row), min(self._bottom[number], row + height)
            left, right = max(self._left[number], column), min(self._right[number], column + width)
            start = int(top - self._top[number]), int(left - self._left[number])
            place = slice(top - row, bottom - row), slice(left - column, right - column)
            yield self._raster(number), (*start, int(bottom - top), int(right - left)), place

    def _raster(self, number: int) -> Raster:
        if number not in self._open:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[number] = Raster(self._paths[number], **self._options)
        self._open.move_to_end(number)
        return self._open[number]

    def _checked(self, number: int, first: Raster) -> Raster:
        raster = self._raster(number)
        raster.require()
        if raster.grid.transform.is_identity:
            raise UserError(
                f"{raster} has no georeference, so it cannot be placed next to the others: predict it alone"
            )
        if difference := _difference(first, raster):
            raise UserError(
                f"{raster} and {first} differ in {difference}: make them alike, e.g. with gdalwarp, or "
                "gdal_translate -b 3 -b 2 -b 1 for another order of bands"
            )
        return raster


def _difference(first: Raster, other: Raster) -> str:
    """Why two rasters cannot be parts of one mosaic, in words; empty where they can."""
    ours, theirs = first.band_colours, other.band_colours
    alike = {
        "coordinate reference system": first.grid.crs == other.grid.crs,
        "number of bands": first.bands == other.bands,
        "data type": first.depth == other.depth,
        f"order of bands ({', '.join(ours)} and {', '.join(theirs)})": ours == theirs
        or not (all(ours) and all(theirs)),
    }
    if difference := next((what for what, same in alike.items() if not same), ""):
        return difference
    a, b = first.grid.transform, other.grid.transform
    pairs = zip((a.a, a.b, a.d, a.e), (b.a, b.b, b.d, b.e), strict=True)
    size = max(abs(a.a), abs(a.b), abs(a.d), abs(a.e))
    if any(abs(x - y) > 1e-6 * size for x, y in pairs):
        return "pixel size or direction"
    if any(abs(value - round(value)) > OFF_GRID for value in _offset(a, b)):
        return "grid (they are shifted by a fraction of a pixel)"
    return ""


def _offset(first: Affine, other: Affine) -> tuple[float, float]:
    """Columns and rows from the upper left corner of the first raster to that of the other."""
    x, y = other.c - first.c, other.f - first.f
    inverse = ~Affine(first.a, first.b, 0, first.d, first.e, 0)
    return inverse.a * x + inverse.b * y, inverse.d * x + inverse.e * y
