"""Whole scenes are counted and drawn in parts: the result is that of the whole, and memory holds a part."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from ome.config.evaluating import _scored
from ome.data import tiles
from ome.data.image_tags import read_tags
from ome.data.mask_tags import tags_from_masks
from ome.data.mask_values import contradictions
from ome.data.palette import Palette
from ome.data.scene_index import Scene, SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tag_filter import coverage
from ome.data.tile_choices import Layout
from ome.data.tiles import Tile
from ome.geo.areas import PixelAreas
from ome.plots.thumbnails import class_picture, error_picture, photo
from ome.report.layered_tiles import TileDrawer
from ome.report.map_areas import mapped_areas
from ome.report.tile_quality import map_quality
from ome.scoring.confusion import confusion_matrix, where_decided
from ome.stages.labels import _tags_by_hand
from tests.archives import read_class_map

T = TypeVar("T")

HEIGHT, WIDTH, WRITTEN = 20_000, 256, 600
"""A scene of 5 megapixels, of which only the last rows are in its files."""

CLASSES = {"road": (200, 0, 0), "tree": (0, 200, 0), "water": (0, 0, 200)}


def write(path: Path, bands: int, top: int, seed: int, **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"height": HEIGHT, "width": WIDTH, "count": bands, "dtype": "uint8", "SPARSE_OK": True}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    place = {"crs": "EPSG:4326", "transform": from_origin(13, 52, 1e-6, 1e-6)}
    pixels = np.random.default_rng(seed).integers(0, top, (bands, WRITTEN, WIDTH), dtype=np.uint8)
    with rasterio.open(path, "w", driver="GTiff", **size, **blocks, **place, **more) as dataset:
        dataset.write(pixels, window=Window(0, HEIGHT - WRITTEN, WIDTH, WRITTEN))


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of two segmenters in that of `seg`, which lies beside the scene."""
    folder = tmp_path_factory.mktemp("tall")
    write(folder / "image.tif", 3, 256, seed=0)
    write(folder / "mask.tif", 1, 3, seed=1, nodata=255)
    for seed, name in enumerate(("weak", "full"), start=2):
        write(folder / "seg" / name / "predictions/tall.tif", 1, 3, seed)
    return {name: folder / "seg" / name for name in ("weak", "full")}


@pytest.fixture
def reader(segmenters: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[SceneReader]:
    monkeypatch.setattr(tiles, "COUNTED", 1 << 16)
    scene = Scene("tall", "train", HEIGHT, WIDTH, 3, "image.tif", "mask.tif")
    reader = SceneReader(SceneIndex(segmenters["weak"].parents[1], (scene,), Palette(CLASSES, {})))
    yield reader
    reader.close()


def in_parts(action: Callable[[], T]) -> T:
    """The result of an action that may hold less than one band of the scene at any time."""
    tracemalloc.start()
    try:
        result, peak = action(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < HEIGHT * WIDTH
    return result


def whole(reader: SceneReader, segmenter: Path) -> tuple[Any, Any]:
    """The class map and the reference."""
    return read_class_map(segmenter / "predictions/tall.tif"), reader.mask(reader.index.scenes[0].whole)


def test_maps_are_scored_in_strips(reader: SceneReader, segmenters: dict[str, Path]) -> None:
    (row,) = in_parts(lambda: _scored(segmenters["weak"], reader, "weak"))
    np.testing.assert_array_equal(
        row.scores.matrix, confusion_matrix(*whole(reader, segmenters["weak"]), len(CLASSES))
    )
    assert row.scores.matrix.sum() == WRITTEN * WIDTH


def test_areas_are_summed_in_strips(reader: SceneReader, segmenters: dict[str, Path]) -> None:
    areas = in_parts(lambda: mapped_areas({"weak": segmenters["weak"]}, reader))
    grid = PixelAreas(reader.grid("tall"))
    sums = [
        grid.by_class(lambda row, height, classes=classes: classes[row : row + height])[1]  # type: ignore[misc]
        for classes in whole(reader, segmenters["weak"])
    ]
    assert areas is not None
    assert areas["table"]["rows"] == [
        [name, *(f"{total[index]:,.0f}" for total in sums)] for index, name in enumerate(CLASSES)
    ]


def test_windows_of_maps_are_read_alone(reader: SceneReader, segmenters: dict[str, Path]) -> None:
    scored = in_parts(lambda: map_quality(segmenters["weak"], reader, 256))
    mapped, reference = whole(reader, segmenters["weak"])
    assert len(scored) == 4  # those with a reference
    for one in scored:
        place = np.s_[one.tile.row : one.tile.row + one.tile.height]
        expected = confusion_matrix(mapped[place], where_decided(mapped[place], reference[place]), 3)
        np.testing.assert_array_equal(one.scores.matrix, expected)


def test_a_scene_is_drawn_from_strips(reader: SceneReader, segmenters: dict[str, Path]) -> None:
    work: Any = SimpleNamespace(inputs={"seg": segmenters["weak"].parent})
    tags: Any = None  # those of training tiles, which are not drawn
    drawer, tile, colours = TileDrawer(work, reader, tags), reader.index.scenes[0].whole, [*CLASSES.values()]
    shown = in_parts(lambda: drawer.mapped_tile(tile))
    (weak, reference), (full, _) = (whole(reader, segmenters[name]) for name in ("weak", "full"))
    expected = [class_picture("", mask, colours) for mask in (weak, full, reference)]
    expected.append(error_picture("", weak, reference))
    assert [layer.picture for layer in shown.layers[1:]] == [layer.picture for layer in expected]
    found, image = (
        np.asarray(one.picture).astype(int) for one in (shown.layers[0], photo("", reader.display(tile)))
    )
    assert np.abs(found - image).max() <= 1


@pytest.mark.parametrize("cover", [True, False])
def test_tags_are_read_from_rows_of_tiles(reader: SceneReader, *, cover: bool) -> None:
    layout = Layout(200, 160)
    found = in_parts(lambda: tags_from_masks(reader, layout, 0.1, {}, drops="tile", cover=cover))
    mask = reader.mask(reader.index.scenes[0].whole)
    windows = [
        mask[tile.row : tile.row + tile.height, tile.column : tile.column + tile.width]
        for tile in found.table.tiles
    ]
    expected = [coverage(window, 3) > 0 for window in windows]
    np.testing.assert_array_equal(found.table.tags, expected)
    assert found.table.tags.any()
    assert {choice.size for choice in found.choices} == {100, 200, 400}


def test_a_tagged_scene_is_checked_in_strips(
    reader: SceneReader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\ntall,road;tree\n")
    table = in_parts(lambda: _tags_by_hand(tmp_path / "tags.csv", reader.index, reader))
    assert table.tiles == read_tags(tmp_path / "tags.csv", reader.index).tiles
    assert in_parts(lambda: list(contradictions(table, reader))) == [
        "1 of 1 tiles have water in their masks, and no such tag: tall_00000_00000"
    ]
    assert "skipped" not in capsys.readouterr().out


def test_strips_are_parts_of_their_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "COUNTED", 25)
    tile = Tile("a", 3, 4, 7, 10)
    assert [strip.window for strip in tile.strips()] == [
        (3, 4, 2, 10),
        (5, 4, 2, 10),
        (7, 4, 2, 10),
        (9, 4, 1, 10),
    ]
    assert [strip.window for strip in Tile("a", 0, 0, 2, 99).strips()] == [(0, 0, 1, 99), (1, 0, 1, 99)]
    assert list(Tile("a", 3, 4, 5, 5).strips()) == [Tile("a", 3, 4, 5, 5)]
