"""Where the pixels of a raster lie."""

from dataclasses import dataclass
from typing import Final

from rasterio.crs import CRS
from rasterio.transform import Affine

RGB = tuple[int, int, int]
"""A colour, 0..255 each."""


OFF_GRID: Final = 0.05
"""Part of a pixel by which rasters of one grid may lie beside one another, for rounded coordinates."""


@dataclass(frozen=True)
class Grid:
    """Size and place of a raster.

    Attributes:
        height: Rows.
        width: Columns.
        crs: Coordinate reference system; None for none.
        transform: Pixel to world coordinates; the identity for none.
    """

    height: int
    width: int
    crs: CRS | None
    transform: Affine

    @property
    def profile(self) -> dict[str, object]:
        """Size and place as keyword arguments for a new raster; no place without a transform."""
        place = {} if self.transform.is_identity else {"crs": self.crs, "transform": self.transform}
        return {"height": self.height, "width": self.width, **place}
