"""Ground areas against closed formulas that use nothing of PROJ."""

import math

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from ome.geo.areas import CELL, PixelAreas
from ome.geo.grid import Grid

RADIUS, FLATTENING = 6378137.0, 1 / 298.257223563
ECCENTRICITY = math.sqrt(FLATTENING * (2 - FLATTENING))


def zone(south: float, north: float, degrees: float) -> float:
    """Area of the WGS 84 ellipsoid between two parallels, of so many degrees of longitude (Snyder 3-12)."""

    def q(latitude: float) -> float:
        sine, e = math.sin(math.radians(latitude)), ECCENTRICITY
        return (1 - e**2) * (sine / (1 - (e * sine) ** 2) + math.atanh(e * sine) / e)

    return RADIUS**2 / 2 * math.radians(degrees) * (q(north) - q(south))


@pytest.mark.parametrize("north", [61.0, 0.05, -33.0])
def test_degrees_are_areas_on_the_ellipsoid(north: float) -> None:
    areas = PixelAreas(Grid(100, 70, CRS.from_epsg(4326), from_origin(10, north, 0.001, 0.001)))
    assert areas.unit == "m2"
    measured = np.concatenate([areas.rows(0, 33), areas.rows(33, 67)])
    assert measured.shape == (100, 70)
    assert measured.sum() == pytest.approx(zone(north - 0.1, north, 0.07), rel=1e-6)
    assert measured[50, 3] == pytest.approx(zone(north - 0.051, north - 0.05, 0.001), rel=2e-4)
    assert areas.pixel_size() == pytest.approx(math.sqrt(measured[50, 35]))


def test_utm_is_freed_of_its_scale() -> None:
    """On the central meridian UTM shows lengths 0.9996 times as long as they are."""
    areas = PixelAreas(Grid(40, 40, CRS.from_epsg(32633), from_origin(500000, 5800000, 0.5, 0.5)))
    assert areas.rows(7, 20)[3, 5] == pytest.approx(0.25 / 0.9996**2, rel=1e-6)


def test_web_mercator_is_freed_of_its_scale() -> None:
    """A metre of Web Mercator at 60 degrees is about half a metre on the ground, in both directions."""
    north = RADIUS * math.log(math.tan(math.radians(45 + 30)))
    areas = PixelAreas(Grid(CELL, CELL, CRS.from_epsg(3857), from_origin(0, north, 1, 1)))
    sine = math.sin(math.radians(60))
    across = 1 / math.sqrt(1 - (ECCENTRICITY * sine) ** 2)
    along = (1 - ECCENTRICITY**2) * across**3
    assert areas.rows(0, 1)[0, 0] == pytest.approx(0.25 * across * along, rel=1e-4)


def test_rotated_pixels_keep_their_size() -> None:
    turned = Affine.translation(500000, 5800000) * Affine.rotation(30) * Affine.scale(2, -3)
    areas = PixelAreas(Grid(50, 50, CRS.from_epsg(32633), turned))
    np.testing.assert_allclose(areas.rows(0, 50), 6 / 0.9996**2, rtol=1e-5)


def test_without_a_place_on_earth() -> None:
    nowhere = PixelAreas(Grid(5, 7, None, Affine.identity()))
    assert (nowhere.unit, nowhere.pixel_size()) == ("pixels", None)
    np.testing.assert_array_equal(nowhere.rows(2, 3), np.ones((3, 7)))
    site = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')
    assert PixelAreas(Grid(5, 7, site, from_origin(0, 0, 0.5, 0.5))).rows(0, 1)[0, 0] == 0.25
