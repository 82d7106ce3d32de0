import numpy as np
import pytest

from ome.data.tiles import (
    Length,
    Tile,
    automatic_epochs,
    automatic_steps,
    crop_side,
    evenly_spaced,
    tile_scene,
)
from ome.errors import UserError


def test_potsdam_has_the_published_number_of_tiles_without_its_last_rows_and_columns() -> None:
    assert 23 * len(tile_scene("2_10", 6000, 6000, size=256, stride=128, cover=False)) == 46_575


@pytest.mark.parametrize(
    ("height", "width", "size", "stride"), [(100, 130, 32, 16), (33, 32, 32, 32), (97, 64, 20, 7)]
)
def test_covering_tiles_reach_every_pixel_and_stay_inside(
    height: int, width: int, size: int, stride: int
) -> None:
    tiles = tile_scene("a", height, width, size, stride)
    covered = np.zeros((height, width), dtype=bool)
    for tile in tiles:
        assert tile.row >= 0
        assert tile.column >= 0
        assert (tile.height, tile.width) == (size, size)
        assert tile.row + size <= height
        assert tile.column + size <= width
        covered[tile.row : tile.row + size, tile.column : tile.column + size] = True
    assert covered.all()
    assert len(set(tiles)) == len(tiles)
    assert tiles == sorted(tiles)


def test_last_tiles_are_shifted_to_the_edge_or_dropped() -> None:
    assert [tile.column for tile in tile_scene("a", 4, 11, 4, 4)] == [0, 4, 7]
    assert [tile.column for tile in tile_scene("a", 4, 11, 4, 4, cover=False)] == [0, 4]
    for cover in (True, False):
        assert [tile.column for tile in tile_scene("a", 4, 12, 4, 4, cover=cover)] == [0, 4, 8]


def test_a_scene_smaller_than_a_tile() -> None:
    assert tile_scene("a", 10, 40, 32, 32) == [Tile("a", 0, 0, 10, 32), Tile("a", 0, 8, 10, 32)]
    assert tile_scene("a", 10, 40, 32, 32, cover=False) == []


def test_names_are_unique_and_sort_like_the_tiles() -> None:
    tiles = tile_scene("2_10", 300, 300, 100, 50)
    names = [tile.name for tile in tiles]
    assert names[0] == "2_10_00000_00000"
    assert len(set(names)) == len(names)
    assert names == sorted(names)


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (1, 0), (-4, 2)])
def test_sizes_must_be_positive(size: int, stride: int) -> None:
    with pytest.raises(UserError, match=f"size {size} and stride {stride}"):
        tile_scene("a", 10, 10, size, stride)


def test_evenly_spaced_items_run_from_the_first_to_the_last() -> None:
    assert evenly_spaced("abcdefg", 3) == ["a", "d", "g"]
    assert evenly_spaced("abcdefg", 1) == ["a"]
    assert evenly_spaced("abc", 9) == ["a", "b", "c"]
    assert evenly_spaced("abc", 0) == evenly_spaced("", 4) == []


@pytest.mark.parametrize(
    ("sides", "size", "crop"),
    [
        ([(256, 256)], 256, 256),
        ([(306, 306)], 306, 306),
        ([(64, 64)], 256, 64),
        ([(100, 90), (20, 31)], 256, 128),
        ([(100, 300)], 256, 256),
        ([(1, 1)], 256, 32),
        ([(1000, 2000)], 128, 128),
    ],
)
def test_crops_are_no_larger_than_the_largest_tile(
    sides: list[tuple[int, int]], size: int, crop: int
) -> None:
    tiles = [Tile("a", 0, 0, height, width) for height, width in sides]
    assert crop_side(tiles, size) == crop


@pytest.mark.parametrize(
    ("tiles", "epochs"),
    [(0, 20), (1, 20), (240, 20), (255, 20), (256, 19), (588, 9), (748, 7), (800, 6), (958, 6), (46575, 6)],
)
def test_a_classifier_has_passes_for_enough_steps_between_limits(tiles: int, epochs: int) -> None:
    assert automatic_epochs(tiles, 16) == epochs


@pytest.mark.parametrize("batch", [1, 4, 16, 24])
def test_a_classifier_has_twenty_passes_or_enough_steps_whatever_the_batch_leaves_over(batch: int) -> None:
    for tiles in range(batch, 40 * batch):
        epochs, steps = Length.of_epochs(automatic_epochs(tiles, batch), tiles, batch)
        seen = steps * batch
        assert epochs * seen >= 20 * tiles or epochs * steps >= 300
        assert (epochs - 1) * seen < 20 * tiles
        assert epochs == 6 or (epochs - 1) * steps < 300


@pytest.mark.parametrize(
    ("tiles", "steps"), [(1, 400), (640, 400), (641, 401), (4560, 2850), (32000, 20000), (46575, 20000)]
)
def test_steps_are_ten_passes_between_limits(tiles: int, steps: int) -> None:
    assert automatic_steps(tiles, 16) == steps
