"""Size and georeference of a raster."""

from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any, Final

from rasterio.crs import CRS
from rasterio.transform import Affine

from ome.errors import UserError

RGB = tuple[int, int, int]
"""A colour, 0..255 each."""


OFF_GRID: Final = 0.05
"""Fraction of a pixel by which rasters of one grid may be misaligned, because coordinates are rounded."""


@dataclass(frozen=True)
class Grid:
    """Size and georeference of a raster.

    Attributes:
        height: Rows.
        width: Columns.
        crs: Coordinate reference system, if any; None for a raster without transform.
        transform: Pixel to world coordinates; the identity without a georeference.
    """

    height: int
    width: int
    crs: CRS | None
    transform: Affine

    @property
    def profile(self) -> dict[str, object]:
        """Keyword arguments of rasterio for a new raster; without CRS where there is no transform."""
        place = {} if self.transform.is_identity else {"crs": self.crs, "transform": self.transform}
        return {"height": self.height, "width": self.width, **place}


def grid_of(name: str, dataset: Any, transform: Affine | None) -> Grid:  # noqa: ANN401 - rasterio's own
    """The size and georeference of an open raster.

    Args:
        name: Name of the raster in error messages.
        dataset: The raster.
        transform: Pixel to world coordinates where the file has none; it comes from a sidecar file.

    Raises:
        UserError: The raster is placed by control points or polynomials, or its pixels have size 0.
    """
    place: Affine = dataset.transform
    if place.is_identity and dataset.gcps[0]:
        raise UserError(
            f"{name} is placed by ground control points: warp it to a grid first, gdalwarp IN OUT"
        )
    if place.is_identity and dataset.rpcs is not None:
        raise UserError(
            f"{name} is placed by rational polynomials (RPC): warp it to a grid first, gdalwarp -rpc IN OUT"
        )
    if transform is not None and place.is_identity:
        place = transform
    if not 0 < abs(place.determinant) < inf or not all(map(isfinite, place)):
        raise UserError(
            f"{name} has pixels of size 0, or an infinite place: correct its georeference, e.g. gdal_edit "
            "-a_ullr LEFT TOP RIGHT BOTTOM, or remove it, gdal_edit -unsetgt"
        )
    # A reference system without a place says nothing about the size of pixels.
    crs = None if place.is_identity else dataset.crs
    return Grid(dataset.height, dataset.width, crs, place)


def misplaced(grid: Grid, image: Grid) -> str:
    """How the place of a raster differs from its image's, in words; empty if it does not, or one has none.

    A raster of larger pixels may reach beyond the image by less than one of them.
    """
    if grid.transform.is_identity or image.transform.is_identity:
        return ""
    if grid.crs and image.crs and grid.crs != image.crs:
        return f"is in {grid.crs.to_string()}, not in {image.crs.to_string()} as"
    to_image = ~image.transform * grid.transform
    slack = OFF_GRID + max(sqrt(abs(to_image.determinant)) - 1, 0)
    shift = 0.0
    for x, y in ((0, 0), (0, 1), (1, 0), (1, 1)):
        column, row = to_image * (x * grid.width, y * grid.height)
        shift = max(shift, abs(column - x * image.width), abs(row - y * image.height))
    return f"is shifted by {shift:.1f} pixels against" if shift > slack else ""
