"""True ground areas of a raster's pixels, whatever its coordinate reference system."""

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as reproject

from ome.errors import UserError
from ome.geo.grid import Grid

Floats = NDArray[np.float64]

CELL: Final = 32
"""Side in pixels of the cells within which all pixels count as equally large."""

STRIP: Final = 256
"""Rows whose areas are summed at a time."""

LONGITUDE_LATITUDE: Final = CRS.from_epsg(4326)


class PixelAreas:
    """The area on the ground of every pixel of a raster.

    Corners of cells of `CELL` pixels are projected to an equal-area plane around the raster's centre
    (Lambert's azimuthal projection on the WGS 84 ellipsoid), where the area of a cell is that of a
    quadrangle. Areas are thus right in degrees and Web Mercator, and free of UTM's scale error (up to 0.1 %).

    Args:
        grid: Size and place of the raster.
        name: Name of the raster in error messages.

    Raises:
        UserError: The raster's centre is not a place on Earth.

    Attributes:
        unit: `m2`, or `pixels` where the raster has no coordinate reference system: each pixel then counts 1.
    """

    def __init__(self, grid: Grid, name: str = "the raster") -> None:
        self._height, self._width = height, width = grid.height, grid.width
        self._crs, self._transform = crs, transform = grid.crs, grid.transform
        self._plane: CRS | None = None
        self.unit = "pixels" if crs is None else "m2"
        if crs is None:
            return
        if not (crs.is_geographic or crs.is_projected):
            return  # a local (engineering) system: already a plane
        x, y = _world(transform, np.array(width / 2), np.array(height / 2))
        (longitude,), (latitude,) = reproject(crs, LONGITUDE_LATITUDE, [float(x)], [float(y)])
        if crs.is_geographic and not (abs(longitude) <= 360 and abs(latitude) <= 90):
            raise UserError(
                f"{name} has degrees as coordinates ({crs}), but its centre lies at {float(x):.6g}, "
                f"{float(y):.6g}: give it the reference system it is in, e.g. gdal_edit -a_srs EPSG:32633"
            )
        if math.isfinite(longitude) and math.isfinite(latitude):
            plane = f"+proj=laea +lat_0={latitude:.9f} +lon_0={longitude:.9f} +datum=WGS84 +units=m"
            self._plane = CRS.from_string(plane)

    def rows(self, row: int, height: int) -> Floats:
        """Areas of the pixels in `height` rows from `row` on: (height, W) in `unit`."""
        if self._crs is None:
            return np.ones((height, self._width))
        first, last = row // CELL, -(-(row + height) // CELL)
        ys = np.minimum(np.arange(first, last + 1) * CELL, self._height)
        xs = np.minimum(np.arange(-(-self._width // CELL) + 1) * CELL, self._width)
        east, north = self._ground(xs, ys)
        per_pixel = _quadrangles(east, north) / np.outer(np.diff(ys), np.diff(xs))
        columns = np.repeat(per_pixel, np.diff(xs), axis=1)
        return np.repeat(columns, np.diff(ys), axis=0)[row - first * CELL :][:height]

    def by_class(self, read: Callable[[int, int], NDArray[np.uint8]]) -> tuple[NDArray[np.int64], Floats]:
        """Sums the pixels and the area of each class of a map.

        Args:
            read: `read(row, height)` -> (height, W) uint8 class indices, or 255.

        Returns:
            Pixels of each index (256,), and their area in `unit` (256,).
        """
        pixels, covered = np.zeros(256, dtype=np.int64), np.zeros(256)
        for row in range(0, self._height, STRIP):
            height = min(STRIP, self._height - row)
            classes = read(row, height).ravel()
            pixels += np.bincount(classes, minlength=256)
            covered += np.bincount(classes, self.rows(row, height).ravel(), minlength=256)
        return pixels, covered

    def pixel_size(self) -> float | None:
        """Side in metres of a square as large as the pixel at the raster's centre; None without a CRS."""
        if self._crs is None:
            return None
        return math.sqrt(float(self.rows(self._height // 2, 1)[0, self._width // 2]))

    def _ground(self, xs: NDArray[Any], ys: NDArray[Any]) -> tuple[Floats, Floats]:
        """Metres east and north of the grid points at columns `xs` and rows `ys`: (rows, columns) each."""
        columns, rows = np.meshgrid(xs.astype(np.float64), ys.astype(np.float64))
        east, north = _world(self._transform, columns, rows)
        if self._plane is None:
            factor = self._crs.units_factor[1] if self._crs is not None else 1.0
            return east * factor, north * factor
        projected = reproject(self._crs, self._plane, east.ravel(), north.ravel())
        east, north = (np.asarray(values).reshape(columns.shape) for values in projected)
        return east, north


def _world(transform: Affine, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    return x, y


def _quadrangles(east: Floats, north: Floats) -> Floats:
    """Areas between neighbouring grid points, by half the cross product of the diagonals."""
    down_east, down_north = east[1:, 1:] - east[:-1, :-1], north[1:, 1:] - north[:-1, :-1]
    up_east, up_north = east[:-1, 1:] - east[1:, :-1], north[:-1, 1:] - north[1:, :-1]
    result: Floats = np.abs(down_east * up_north - down_north * up_east) / 2
    return result
