"""True ground areas of a raster's pixels, whatever its coordinate reference system."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from rich.markup import escape

from ome.errors import UserError
from ome.geo.ellipsoid import Ellipsoid, Floats
from ome.geo.grid import Grid
from ome.ignore import IGNORE
from ome.progress import console

CELL: Final = 64
"""Side in pixels of the cells within which areas are interpolated, where that is exact enough."""

TOLERANCE: Final = 1e-4
"""Largest relative error in the middle of such a cell; areas are interpolated at half that distance."""

STRAIGHT: Final = 0.005
"""Radians over which the edges of a pixel count as straight, 32 km on Earth; larger pixels are divided."""

MOST: Final = 16
"""Parts of a pixel's side at most."""

MAX_PIXEL_RATIO: Final = 1.5
"""Largest ratio of pixel sizes of images for one network that gives no warning."""

STRIP: Final = 256
"""Rows whose areas are summed at a time."""


class PixelAreas:
    """The area on the ground of every pixel of a raster, right to 1e-4.

    In degrees a row of pixels is a zone of the ellipsoid, by a closed formula. In other systems the corners
    of pixels are projected to the sphere whose areas are those of the ellipsoid. Areas are thus also right
    in Web Mercator, and free of UTM's scale error (up to 0.1 %). A pixel that is not on Earth has the area
    0, e.g. beyond a pole, or beside the disc that a geostationary satellite sees.

    Args:
        grid: Size and place of the raster.
        name: Name of the raster in messages.

    Raises:
        UserError: The raster's centre is not a place on Earth.

    Attributes:
        unit: `m2`, or `pixels` where the raster has no coordinate reference system: each pixel then counts 1.
    """

    def __init__(self, grid: Grid, name: str = "the raster") -> None:
        self._height, self._width = height, width = grid.height, grid.width
        transform, self._name = grid.transform, name
        self._transform = transform
        self.unit = "pixels" if grid.crs is None else "m2"
        self._by_row: Floats | None = None
        if (crs := grid.crs) is None or not (crs.is_geographic or crs.is_projected):
            # A local (engineering) system is already a plane.
            factor = 1.0 if crs is None else crs.units_factor[1] ** 2 * abs(transform.determinant)
            self._by_row = np.full(height, factor)
            return
        self._ellipsoid = Ellipsoid(crs)
        unit: float = crs.units_factor[1]
        a, b, _, d, e, _ = transform[:6]
        side = unit * max(math.hypot(a, d), math.hypot(b, e))
        radians = side if crs.is_geographic else side / self._ellipsoid.radius
        self._parts = min(math.ceil(radians / STRAIGHT), MOST)
        if not crs.is_geographic:
            return
        x, y = _world(transform, np.array(width / 2), np.array(height / 2))
        if not (abs(x) * unit <= 2 * math.pi and abs(y) * unit <= math.pi / 2):
            raise UserError(
                f"{name} has degrees as coordinates ({crs}), but its centre lies at {float(x):.6g}, "
                f"{float(y):.6g}: give it the reference system it is in, e.g. gdal_edit -a_srs EPSG:32633"
            )
        if b == d == 0 and "DERIVINGCONVERSION" not in crs.to_wkt():
            latitudes = (transform.f + e * np.arange(height + 1)) * unit
            self._by_row = self._ellipsoid.zones(latitudes) * abs(a) * unit

    def rows(self, row: int, height: int) -> Floats:
        """Areas of the pixels in `height` rows from `row` on: (height, W) in `unit`."""
        if self._by_row is not None:
            return np.repeat(self._by_row[row : row + height, None], self._width, axis=1)
        first, last = row // CELL, (row + height - 1) // CELL
        cells = [self._row_of_cells(number) for number in range(first, last + 1)]
        return np.concatenate(cells)[row - first * CELL :][:height]

    def by_class(self, read: Callable[[int, int], NDArray[np.uint8]]) -> tuple[NDArray[np.int64], Floats]:
        """Sums the pixels and the area of each class of a map.

        Args:
            read: `read(row, height)` -> (height, W) uint8 class indices, or 255.

        Returns:
            Pixels of each index (256,), and their area in `unit` (256,).
        """
        pixels, covered, nowhere = np.zeros(256, dtype=np.int64), np.zeros(256), 0
        for row in range(0, self._height, STRIP):
            height = min(STRIP, self._height - row)
            classes, areas = read(row, height).ravel(), self.rows(row, height).ravel()
            pixels += np.bincount(classes, minlength=256)
            covered += np.bincount(classes, areas, minlength=256)
            nowhere += int(np.count_nonzero((areas == 0) & (classes != IGNORE)))
        if nowhere:
            console.print(
                f"{escape(self._name)}: {nowhere} pixels with a class are not on Earth, beyond a pole or the "
                "edge of its reference system: they have no area",
            )
        return pixels, covered

    def pixel_size(self) -> float | None:
        """Side in metres of a square as large as the pixel at the raster's centre; None without an area."""
        if self.unit == "pixels":
            return None
        row, column = self._height // 2, self._width // 2
        if self._by_row is not None:
            return math.sqrt(self._by_row[row]) or None
        return math.sqrt(self._measured(np.array([row]), np.array([column]))[0, 0]) or None

    def _row_of_cells(self, number: int) -> Floats:
        """Areas in a row of cells, (height of the cells, W): interpolated if that is exact, else measured."""
        top, bottom = number * CELL, min((number + 1) * CELL, self._height)
        rows, columns = np.arange(top, bottom), np.arange(self._width)
        ys = np.unique([top, (top + bottom - 1) // 2, bottom - 1])
        xs = np.unique([*range(0, self._width, CELL // 2), self._width - 1])
        nodes = self._measured(ys, xs)
        y, x = (np.unique([*range(0, len(places), 2), len(places) - 1]) for places in (ys, xs))
        error = np.abs(_interpolated(nodes[y][:, x], ys[y], xs[x], ys, xs) - nodes)
        if nodes.all() and (error <= TOLERANCE * nodes).all():
            return _interpolated(nodes, ys, xs, rows, columns)
        return np.concatenate(
            [self._measured(few, columns) for few in np.split(rows, range(8, len(rows), 8))]
        )

    def _measured(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
        """Areas of the pixels at some rows and columns, (rows, columns); 0 where they are not on Earth."""
        (ys, down), (xs, right) = (self._edges(pixels) for pixels in (rows, columns))
        x, y = _world(self._transform, *np.meshgrid(xs, ys))
        quadrangles = np.nan_to_num(_quadrangles(self._ellipsoid.points(x, y)))
        parts = quadrangles[down.ravel()][:, right.ravel()].reshape(*down.shape, *right.shape)
        result: Floats = parts.sum(axis=(1, 3))
        return result

    def _edges(self, pixels: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
        """Edges of the parts of some pixels, and the index of the edge before each part, (pixels, parts)."""
        edges, index = np.unique(
            pixels[:, None] * self._parts + np.arange(self._parts + 1), return_inverse=True
        )
        return edges / self._parts, index.reshape(len(pixels), -1)[:, :-1]


def _world(transform: Affine, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    return x, y


def _interpolated(
    values: Floats,
    ys: NDArray[np.int64],
    xs: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> Floats:
    """Values at rows and columns, by linear interpolation between those at `ys` and `xs`."""
    across = np.stack([np.interp(columns, xs, line) for line in values])
    weights = np.stack([np.interp(rows, ys, unit) for unit in np.eye(len(ys))], axis=1)
    result: Floats = weights @ across
    return result


def _quadrangles(points: Floats) -> Floats:
    """Areas between neighbouring points (rows, columns, 3), by half the cross product of the diagonals."""
    down, up = points[1:, 1:] - points[:-1, :-1], points[:-1, 1:] - points[1:, :-1]
    result: Floats = np.linalg.norm(np.cross(down, up), axis=-1) / 2
    return result
