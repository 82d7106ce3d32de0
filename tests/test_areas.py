"""Ground areas against closed formulas that use nothing of PROJ."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
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


WEB = RADIUS * math.pi
"""Half the width of the world in Web Mercator."""


def mercator(y: float) -> float:
    """Latitude in degrees of Web Mercator's northing."""
    return math.degrees(math.atan(math.sinh(y / RADIUS)))


def rows_of(grid: Grid) -> NDArray[np.float64]:
    """All areas, read in strips that no cell ends with."""
    areas = PixelAreas(grid)
    return np.concatenate([areas.rows(row, min(37, grid.height - row)) for row in range(0, grid.height, 37)])


@pytest.mark.parametrize(
    ("crs", "corner", "size", "shape", "latitude", "longitude"),
    [
        ("EPSG:4326", (-180, 90), 1, (180, 360), float, 1),
        ("EPSG:4326", (-180.5, 90.5), 1, (181, 361), lambda y: max(min(y, 90), -90), 1),
        ("EPSG:4326", (-75, 84), 0.05, (500, 1300), float, 0.05),
        ("EPSG:4326", (-10, 70), 0.25, (140, 200), float, 0.25),
        ("EPSG:3857", (-WEB, WEB), WEB / 64, (128, 128), mercator, 180 / 64),
        ("EPSG:3857", (-3e6, 1.9e7), 20000, (150, 70), mercator, math.degrees(20000 / RADIUS)),
        ("EPSG:3857", (4e5, 1.2e7), 1000, (200, 150), mercator, math.degrees(1000 / RADIUS)),
        ("EPSG:3857", (4e5, 9e6), 30, (200, 150), mercator, math.degrees(30 / RADIUS)),
        (
            "+proj=eqc +datum=WGS84",
            (-2e7, 1e7),
            1e5,
            (200, 9),
            lambda y: math.degrees(y / RADIUS),
            0.89831528,
        ),
    ],
)
def test_every_pixel_of_a_coarse_grid_is_right(
    crs: str,
    corner: tuple[float, float],
    size: float,
    shape: tuple[int, int],
    latitude: Callable[[float], float],
    longitude: float,
) -> None:
    place = from_origin(*corner, size, size)
    edges = [latitude(corner[1] - size * row) for row in range(shape[0] + 1)]
    truth = [zone(south, north, longitude) for north, south in pairwise(edges)]
    measured = rows_of(Grid(*shape, CRS.from_string(crs), place))
    np.testing.assert_allclose(measured, np.repeat(np.array(truth)[:, None], shape[1], 1), rtol=1e-4)


@pytest.mark.parametrize("size", [10, 1000, 50_000, 300_000])
@pytest.mark.parametrize("crs", ["EPSG:3035", "EPSG:6933", "EPSG:6931", "+proj=laea +lat_0=-90 +R=1737400"])
def test_equal_area_projections_have_equal_areas(crs: str, size: float) -> None:
    x, y = (4e6, 3e6) if crs == "EPSG:3035" else (0.0, 0.0)
    corner = (x - 4 * size, y + 4 * size)
    measured = rows_of(Grid(8, 9, CRS.from_string(crs), from_origin(*corner, size, size)))
    np.testing.assert_allclose(measured, size**2, rtol=1e-4)


def test_a_grid_in_degrees_may_be_turned() -> None:
    turned = Affine(0, 0.5, -5, -0.5, 0, 80)
    measured = rows_of(Grid(90, 110, CRS.from_epsg(4326), turned))
    truth = [zone(79.5 - column / 2, 80 - column / 2, 0.5) for column in range(110)]
    np.testing.assert_allclose(measured, np.tile(truth, (90, 1)), rtol=1e-4)


def test_latitudes_of_a_shifted_pole_are_those_of_the_globe_it_names() -> None:
    pole = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +R=6371229"
    measured = rows_of(Grid(100, 80, CRS.from_string(pole), from_origin(-20, 25, 0.5, 0.5)))
    sines = np.sin(np.radians(25 - 0.5 * np.arange(101)))
    truth = 6371229**2 * math.radians(0.5) * (sines[:-1] - sines[1:])
    np.testing.assert_allclose(measured, np.repeat(truth[:, None], 80, 1), rtol=1e-4)


@pytest.mark.parametrize(
    ("crs", "axis", "inverse"), [(4314, 6377397.155, 299.1528128), (4008, 6378206.4, 294.97870)]
)
def test_degrees_of_another_ellipsoid_are_areas_on_that(crs: int, axis: float, inverse: float) -> None:
    """A square at the equator is as wide as the radius says and as high as the curvature of the meridian."""
    square = (2 - 1 / inverse) / inverse
    area = PixelAreas(Grid(1, 1, CRS.from_epsg(crs), from_origin(10, 0.0005, 0.001, 0.001))).rows(0, 1)[0, 0]
    assert area == pytest.approx(math.radians(0.001) ** 2 * axis**2 * (1 - square), rel=1e-7)


def seen_from_orbit(x: NDArray[np.float64], y: NDArray[np.float64], height: float) -> NDArray[np.float64]:
    """Where rays of a geostationary satellite meet the ellipsoid: (..., 3) metres; NaN beside it."""
    ray = np.stack([-np.ones_like(x), np.tan(x / height), np.tan(y / height)], axis=-1)
    ray[..., 2] *= np.hypot(1, ray[..., 1])
    scale, start = np.array([1, 1, 1 / (1 - FLATTENING)]), np.array([height + RADIUS, 0, 0])
    a, b = ((ray * scale) ** 2).sum(-1), (ray * scale * start).sum(-1)
    with np.errstate(invalid="ignore"):
        way = (-b - np.sqrt(b**2 - a * (start @ start - RADIUS**2))) / a
    result: NDArray[np.float64] = start + way[..., None] * ray
    return result


@pytest.mark.parametrize("size", [48_000, 96_000])
def test_the_disc_that_a_satellite_sees(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the surface between rays; beside the disc there is no area, and one line says so."""
    height, parts, side = 35785831, 8, 2 * 5_568_000 // size
    line = np.arange(side * parts + 1) * size / parts - 5_568_000
    points = seen_from_orbit(*np.meshgrid(line, -line), height)
    cross = np.cross(points[1:, 1:] - points[:-1, :-1], points[:-1, 1:] - points[1:, :-1])
    truth = (np.linalg.norm(cross, axis=-1) / 2).reshape(side, parts, side, parts).sum((1, 3))
    crs = CRS.from_string(f"+proj=geos +h={height} +lon_0=0 +sweep=y +datum=WGS84")
    grid = Grid(side, side, crs, from_origin(-5_568_000, 5_568_000, size, size))
    measured = rows_of(grid)
    distance = np.hypot(*np.meshgrid(*2 * [np.arange(side) - (side - 1) / 2])) * size
    inside = distance < 4_900_000
    np.testing.assert_allclose(measured[inside], truth[inside], rtol=1e-4)
    assert (measured[distance > 5_568_000] == 0).all()
    outside = int((measured == 0).sum())
    pixels, areas = PixelAreas(grid, "disc.tif").by_class(lambda _, rows: np.zeros((rows, side), np.uint8))
    assert (pixels[0], areas[0]) == (side**2, pytest.approx(measured.sum()))
    printed = " ".join(capsys.readouterr().out.split())
    assert f"disc.tif: {outside} pixels with a class are not on Earth" in printed
    PixelAreas(grid).by_class(lambda row, rows: np.where(measured[row : row + rows], 0, 255).astype(np.uint8))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("crs", "corner", "size"),
    [("EPSG:3857", (-3e7, 3e7), 1e6), ("EPSG:3857", (9e7, 9e9), 1e7), ("+proj=ortho", (-8e6, 8e6), 2.5e5)],
)
def test_places_beyond_a_projection_are_no_traceback(
    crs: str, corner: tuple[float, float], size: float
) -> None:
    measured = rows_of(Grid(20, 70, CRS.from_string(crs), from_origin(*corner, size, size)))
    assert np.isfinite(measured).all()
    assert (measured >= 0).all()


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
