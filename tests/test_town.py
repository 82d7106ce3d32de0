import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from ome.data.prepare import prepare_scenes
from ome.data.raw import RawLayout
from ome.data.raw_split import Split
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tag_filter import coverage
from ome.data.tiles import Tile, tile_scene
from ome.errors import UserError
from ome.ignore import IGNORE
from ome.synthetic.town import boundaries, write_town
from tests import archives


@pytest.fixture(scope="module")
def layout() -> RawLayout:
    return archives.layout("synthetic")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, layout: RawLayout) -> Path:
    folder: Path = tmp_path_factory.mktemp("raw")
    write_town(layout, folder, size=512, seed=0)
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, layout: RawLayout, raw: Path) -> SceneIndex:
    return prepare_scenes(layout, raw, tmp_path_factory.mktemp("scenes"))


def test_the_town_is_prepared_like_a_real_dataset(index: SceneIndex) -> None:
    assert [len(index.split(split)) for split in ("train", "val", "test")] == [6, 0, 2]
    assert index.unknown.pixels == 0
    with rasterio.open(index.folder / index.scenes[0].image) as dataset:
        assert dataset.crs == "EPSG:32633"
        assert dataset.res == (0.25, 0.25)


def test_every_class_trains_and_scores(index: SceneIndex) -> None:
    for split in ("train", "test"):
        pixels = np.sum([scene.class_pixels for scene in index.split(split)], axis=0)
        assert (pixels > [20_000, 20_000, 20_000, 20_000, 2_000]).all()


def test_tags_are_informative(index: SceneIndex) -> None:
    reader = SceneReader(index)
    tiles = [tile for scene in index.scenes for tile in tile_scene(scene.name, 512, 512, 128, 128)]
    present = np.mean([coverage(reader.mask(tile), 5) > 0 for tile in tiles], axis=0)
    assert (present <= 0.75).all()
    assert (present[:4] >= 0.2).all()
    assert present[4] >= 0.1


def test_vegetation_is_bright_in_the_infrared_and_nothing_else_is_told_by_colour_alone(
    layout: RawLayout, raw: Path, tmp_path: Path
) -> None:
    index = prepare_scenes(replace(layout, bands="rgbir"), raw, tmp_path)
    reader = SceneReader(index, (1, 4))
    tile = Tile("2_10", 0, 0, 512, 512)
    pixels, mask = reader.image(tile).astype(float), reader.mask(tile)
    vegetation_index = (pixels[..., 1] - pixels[..., 0]) / pixels.sum(axis=-1)
    means = [vegetation_index[mask == c].mean() for c in range(5)]
    assert min(means[2], means[3]) > max(means[0], means[1], means[4]) + 0.15


def test_bands_of_one_scene_agree(layout: RawLayout, raw: Path, tmp_path: Path) -> None:
    tile = Tile("2_13", 100, 50, 60, 70)
    read = {}
    for bands in ("rgb", "irrg", "rgbir"):
        chosen = replace(layout, bands=bands, channels=())
        read[bands] = SceneReader(prepare_scenes(chosen, raw, tmp_path / bands)).image(tile)
    assert np.array_equal(read["irrg"][..., 1:], read["rgb"][..., :2])
    assert np.array_equal(read["rgbir"], read["irrg"])


def test_the_eroded_reference_lacks_what_is_near_another_class(
    layout: RawLayout, raw: Path, index: SceneIndex, tmp_path: Path
) -> None:
    eroded = SceneReader(prepare_scenes(replace(layout, reference="eroded"), raw, tmp_path))
    tile = Tile("2_14", 0, 0, 512, 512)
    full, thin = SceneReader(index).mask(tile), eroded.mask(tile)
    assert (thin[thin != IGNORE] == full[thin != IGNORE]).all()
    assert 0.02 < np.mean((thin == IGNORE) & (full != IGNORE)) < 0.4


def test_boundaries_are_a_disc_wide() -> None:
    label = np.random.default_rng(0).integers(0, 12, (15, 13)).astype(np.uint8) // 11
    near = np.zeros_like(label, dtype=bool)
    for (row, column), value in np.ndenumerate(label):
        for (other_row, other_column), other in np.ndenumerate(label):
            close = (row - other_row) ** 2 + (column - other_column) ** 2 <= 9
            near[row, column] |= close and value != other
    assert np.array_equal(boundaries(label, 3), near)


def test_same_seed_same_bytes_and_scenes_do_not_depend_on_each_other(
    layout: RawLayout, tmp_path: Path
) -> None:
    one, two = Split(train=("2_10",)), Split(train=("9_9", "2_10"))
    write_town(replace(layout, split=one), tmp_path / "a", size=128, seed=3)
    write_town(replace(layout, split=one), tmp_path / "b", size=128, seed=3)
    write_town(replace(layout, split=two), tmp_path / "c", size=128, seed=3)
    write_town(replace(layout, split=one), tmp_path / "d", size=128, seed=4)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 5
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    with zipfile.ZipFile(tmp_path / "a" / names[0]) as archive:
        assert archive.infolist()[0].date_time[0] == 1980  # and not today
    tile = Tile("2_10", 0, 0, 128, 128)
    images = []
    for town, split in (("a", one), ("c", two), ("d", one)):
        chosen = replace(layout, split=split)
        scenes = prepare_scenes(chosen, tmp_path / town, tmp_path / "scenes" / town)
        images.append(SceneReader(scenes).image(tile))
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_a_layout_that_the_town_cannot_draw_is_refused(layout: RawLayout, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lack impervious_surface"):
        write_town(archives.layout("deepglobe"), tmp_path, size=64, seed=0)
    with pytest.raises(UserError, match=r"dataset.split: list the scenes"):
        write_town(replace(layout, split=Split(numeric=(1, 1, 1))), tmp_path, size=64, seed=0)
    assert not list(tmp_path.iterdir())
