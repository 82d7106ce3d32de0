"""Polygons found strip by strip are those of the whole map."""

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.transform import Affine, from_origin
from scipy import ndimage

from ome.geo.polygons import Region, class_regions
from ome.geo.vectors import layer_name, write_regions

PIXELS = Affine.identity()
COLOURS = [(200, 0, 0), (0, 200, 0)]


def speckled(height: int = 70, width: int = 55) -> np.ndarray:
    """Large patches, single pixels, and pixels without a class."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (height // 7 + 1, width // 7 + 1)).repeat(7, 0).repeat(7, 1)[:height, :width]
    classes[rng.random(classes.shape) < 0.05] = 1
    classes[rng.random(classes.shape) < 0.03] = 255
    return classes.astype(np.uint8)


def regions_of(classes: np.ndarray, strip: int, confidence: np.ndarray | None = None) -> list[Region]:
    sure = np.ones(classes.shape) if confidence is None else confidence
    batches = class_regions(
        lambda row, rows: classes[row : row + rows],
        lambda row, rows: sure[row : row + rows],
        lambda _, rows: np.full((rows, classes.shape[1]), 0.25),
        len(classes),
        3,
        strip,
    )
    return [region for batch in batches for region in batch]


@pytest.mark.parametrize("strip", [1, 6, 7, 1000])
def test_strips_do_not_show(strip: int) -> None:
    classes = speckled()
    regions = regions_of(classes, strip)
    ours = [(r.class_index, shapely.normalize(r.outline(PIXELS, 0)).wkb) for r in regions]
    whole = shapes(classes, mask=classes < 255, connectivity=4)
    simple = [(int(v), shapely.simplify(shapely.geometry.shape(outline), 0)) for outline, v in whole]
    assert sorted(ours) == sorted((index, shapely.normalize(outline).wkb) for index, outline in simple)
    for region in regions:
        outline = region.outline(PIXELS, 0)
        assert outline.is_valid
        assert outline.area == region.pixels == region.area * 4


def test_a_region_knows_its_mean_confidence() -> None:
    classes = speckled()
    confidence = np.random.default_rng(1).random(classes.shape)
    expected = []
    for index in range(3):
        labels, count = ndimage.label(classes == index)
        expected += ndimage.sum(confidence, labels, range(1, count + 1)).tolist()
    means = [region.confidence for region in regions_of(classes, 9, confidence)]
    np.testing.assert_allclose(sorted(means), sorted(expected))


def test_a_geopackage_of_them(tmp_path: Path) -> None:
    classes = np.zeros((40, 60), np.uint8)
    classes[:, 30:] = 1
    classes[10:20, 5:15] = 255  # a hole
    transform = from_origin(500000, 5800000, 0.5, 0.5)
    path, crs = tmp_path / "town.gpkg", CRS.from_epsg(32633)
    batches = [regions_of(classes, 16), []]
    assert write_regions(path, batches, ["road", "tree"], COLOURS, crs, transform, 1.0, "m2") == 2
    info, _, geometry, columns = pyogrio.raw.read(path, layer="town")
    assert info["crs"] == "EPSG:32633"
    assert list(info["fields"]) == ["class", "area_m2", "confidence"]
    rows = dict(zip(columns[0], zip(shapely.from_wkb(geometry), *columns[1:], strict=True), strict=True))
    road, area, confidence = rows["road"]
    assert (road.area, area, confidence) == (pytest.approx(1100 * 0.25), 1100 * 0.25, 1.0)
    assert road.bounds == (500000, 5800000 - 20, 500015, 5800000)
    assert shapely.box(500002.5, 5800000 - 10, 500007.5, 5800000 - 5).equals(
        shapely.Polygon(road.interiors[0])
    )
    # The table in which QGIS looks for a layer's style.
    meta, _, _, stored = pyogrio.raw.read(path, layer="layer_styles", read_geometry=False)
    style = dict(zip(meta["fields"], (values[0] for values in stored), strict=True))
    assert (style["f_table_name"], style["f_geometry_column"], style["useAsDefault"]) == (
        "town",
        "geom",
        True,
    )
    root = ET.fromstring(style["styleQML"])  # noqa: S314 - written here
    filled = {
        symbol.get("name"): symbol.find("layer/prop[@k='color']").get("v") for symbol in root.iter("symbol")
    }
    shown = {entry.get("value"): filled[entry.get("symbol")] for entry in root.iter("category")}
    assert shown == {"road": "200,0,0,255", "tree": "0,200,0,255"}
    assert root.find("renderer-v2").get("attr") == "class"


def test_simpler_outlines_stay_near() -> None:
    rows, columns = np.mgrid[:80, :80]
    disc = np.where(np.hypot(rows - 40, columns - 40) < 30, 0, 255).astype(np.uint8)
    (region,) = regions_of(disc, 16)
    exact, simple = region.outline(PIXELS, 0), region.outline(PIXELS, 1.5)
    assert len(simple.exterior.coords) < len(exact.exterior.coords) / 4
    assert shapely.hausdorff_distance(exact, simple) <= 1.5 + 1e-9


def test_an_empty_map_is_an_empty_layer(tmp_path: Path) -> None:
    batches = [regions_of(np.full((5, 5), 255, np.uint8), 2)]
    assert (
        write_regions(tmp_path / "none.gpkg", batches, ["a"], COLOURS[:1], None, PIXELS, 1.0, "pixels") == 0
    )
    assert pyogrio.read_info(tmp_path / "none.gpkg", layer="none")["features"] == 0


@pytest.mark.parametrize(
    "name",
    [
        "(1) city",
        "-a",
        "#1",
        "[old]",
        "gpkg_contents",
        "Sqlite_sequence",
        "layer_styles",
        "a;b",
        "a!b",
        "a?",
        "b!/c;d",
    ],
)
def test_any_name_of_a_scene_and_a_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    path = tmp_path / "maps" / f"{name}.gpkg"
    batches = [regions_of(np.zeros((2, 2), np.uint8), 2)] * 2
    assert write_regions(path, batches, ["a"], COLOURS[:1], None, PIXELS, 1.0, "pixels") == 2
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files == [path]
    layers = pyogrio.list_layers(path.rename(tmp_path / "map.gpkg"))[:, 0].tolist()
    assert layers == [layer_name(path), "layer_styles"]
    assert len(pyogrio.raw.read(tmp_path / "map.gpkg", layer=layers[0])[2]) == 2
