"""Size and georeference of a raster."""

from dataclasses import dataclass
from typing import Final

from rasterio.crs import CRS
from rasterio.transform import Affine

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
