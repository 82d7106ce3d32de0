"""Places on the ellipsoid of a reference system, by the sphere on which areas are as large."""

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.warp import transform as reproject

Floats = NDArray[np.float64]

WGS84: Final = (6378137.0, 298.257223563)
"""Semi-major axis in metres and inverse flattening where a reference system names none."""

_CHUNK: Final = 256
"""Points transformed at a time where some of them are not on Earth."""


class Ellipsoid:
    """The ellipsoid of a reference system, measured on its authalic sphere (Snyder 1987, pages 16 and 17).

    Args:
        crs: A geographic or projected reference system.

    Attributes:
        radius: Radius in metres of the sphere with the same surface.
    """

    def __init__(self, crs: CRS) -> None:
        number = r"\s*([\d.eE+-]+)"
        match = re.search(rf'(?:SPHEROID|ELLIPSOID)\["[^"]*",{number},{number}', crs.to_wkt())
        axis, inverse = (float(match[1]), float(match[2])) if match else WGS84
        flattening = 1 / inverse if inverse else 0.0
        self._square = square = flattening * (2 - flattening)
        e = square**0.5
        self.radius = axis * (((1 - square) * np.arctanh(e) / e + 1) / 2 if e else 1.0) ** 0.5
        self._crs = crs
        # Of no named datum, so that no shift to another ellipsoid is applied.
        self._degrees = CRS.from_string(f"+proj=longlat +a={axis!r} +b={axis * (1 - flattening)!r}")

    def authalic(self, latitude: Floats) -> Floats:
        """Latitudes on the sphere for those on the ellipsoid, in radians (Snyder 3-18)."""
        e2, e4, e6 = (self._square**power for power in (1, 2, 3))
        result: Floats = (
            latitude
            - (e2 / 3 + 31 * e4 / 180 + 59 * e6 / 560) * np.sin(2 * latitude)
            + (17 * e4 / 360 + 61 * e6 / 1260) * np.sin(4 * latitude)
            - 383 * e6 / 45360 * np.sin(6 * latitude)
        )
        return result

    def zones(self, latitudes: Floats) -> Floats:
        """Square metres between neighbours of some parallels (radians), for each radian of longitude."""
        beta = self.authalic(np.clip(latitudes, -np.pi / 2, np.pi / 2))
        middle, half = (beta[1:] + beta[:-1]) / 2, (beta[1:] - beta[:-1]) / 2
        result: Floats = self.radius**2 * np.abs(2 * np.cos(middle) * np.sin(half))
        return result

    def points(self, x: Floats, y: Floats) -> Floats:
        """Points (..., 3) in metres on the sphere, for places (...) in the system; NaN if not on Earth."""
        longitude, latitude = np.radians(self._located(np.stack([x.ravel(), y.ravel()])))
        latitude[np.abs(latitude) > np.pi / 2 + 1e-12] = np.nan  # PROJ goes on beyond the poles
        beta = self.authalic(latitude)
        across = np.cos(beta)
        unit = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(beta)], axis=-1)
        result: Floats = self.radius * unit.reshape(*x.shape, 3)
        return result

    def _located(self, places: Floats) -> Floats:
        """Degrees of longitude and latitude (2, n) of places (2, n); NaN where PROJ has none."""
        try:
            degrees = np.array(reproject(self._crs, self._degrees, *places), dtype=np.float64)
            return np.where(np.isfinite(degrees), degrees, np.nan)
        except CPLE_BaseError:  # of one place or of all
            count = places.shape[1]
        if count > _CHUNK:
            parts = np.split(places, range(_CHUNK, count, _CHUNK), axis=1)
        elif count > 1 and (count <= 3 or np.isfinite(self._probed(places)).any()):
            parts = np.array_split(places, 2, axis=1)
        else:
            return np.full((2, count), np.nan)
        return np.concatenate([self._located(part) for part in parts], axis=1)

    def _probed(self, places: Floats) -> Floats:
        """The first, middle and last of some places: where they are not on Earth, nor are those between."""
        probes = places[:, [0, places.shape[1] // 2, -1]]
        return np.concatenate([self._located(probes[:, i : i + 1]) for i in range(3)], axis=1)
