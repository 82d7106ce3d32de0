from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ome.data.tag_filter import Drops, coverage, filter_tiles, minimum_coverage, tags_of
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.errors import UserError

NAMES = ("road", "roof", "car")


def test_coverage_is_a_share_of_all_pixels_ignored_ones_too() -> None:
    mask = np.array([[0, 0, 2, 255], [255, 255, 255, 255]], dtype=np.uint8)
    assert coverage(mask, 3).tolist() == [2 / 8, 0, 1 / 8]
    assert tags_of(mask, 3).tolist() == [1, 0, 1]


def test_one_pixel_is_enough_for_a_tag() -> None:
    mask = np.zeros((256, 256), dtype=np.uint8)
    mask[17, 5] = 1
    assert tags_of(mask, 3).tolist() == [1, 1, 0]
    assert tags_of(np.full((4, 4), 255, dtype=np.uint8), 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("drops", "kept"),
    [("tile", [True, False, True, False, False, True, False]), ("class", [True] * 4 + [False, True, False])],
)
def test_what_is_too_small_to_see_is_not_learnt(drops: Drops, kept: list[bool]) -> None:
    minimum = minimum_coverage(NAMES, 0.1, {"car": 0.025})
    assert minimum.tolist() == [0.1, 0.1, 0.025]
    covered = np.array(
        [
            [0.9, 0.1, 0.0],  # exactly the minimum is enough
            [0.9, 0.099, 0.0],  # roof too small
            [0.97, 0.0, 0.03],  # enough for a car
            [0.98, 0.01, 0.01],  # roof and car too small
            [0.0, 0.0, 0.0],  # nothing but clutter
            [0.3, 0.0, 0.0],  # classes that are absent do not count
            [0.01, 0.02, 0.0],  # nothing that is large enough, beside clutter
        ]
    )
    filtered = filter_tiles(covered, minimum, drops)
    assert filtered.kept.tolist() == kept
    assert np.argwhere(filtered.too_small).tolist() == [[1, 1], [3, 1], [3, 2], [6, 0], [6, 1]]
    assert filtered.dropped.tolist() == [1, 3, 1]
    assert filtered.empty == 1


@pytest.mark.parametrize(
    ("minimum", "overrides", "message"),
    [
        (0.1, {"bus": 0.1}, "bus is not a class"),
        (10.0, {}, "10.0 for road"),
        (0.1, {"car": -1.0}, "-1.0 for car"),
    ],
)
def test_impossible_filters_are_refused(minimum: float, overrides: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        minimum_coverage(NAMES, minimum, overrides)


def table() -> TagTable:
    return TagTable(
        names=NAMES,
        tiles=(Tile("2_10", 0, 128, 64, 64), Tile("5_15", 64, 0, 64, 32)),
        tags=np.array([[1, 0, 1], [0, 0, 0]], dtype=np.uint8),
        splits=("train", "test"),
        kept=np.array([True, False]),
    )


def test_training_windows_that_overlap_windows_of_other_splits_are_told() -> None:
    rng = np.random.default_rng(0)
    tiles = [
        Tile(scene, *(int(x) for x in (*rng.integers(0, 90, 2), *rng.integers(1, 40, 2))))
        for scene in "abc"
        for _ in range(12)
    ]
    splits = tuple(rng.choice(["train", "val", "test"], len(tiles)).tolist())
    many = TagTable(NAMES, tuple(tiles), np.ones((36, 3), np.uint8), splits, np.ones(36, bool))

    def painted(tile: Tile) -> NDArray[np.bool_]:
        scene = np.zeros((3, 200, 200), bool)
        rows, columns = slice(tile.row, tile.row + tile.height), slice(tile.column, tile.column + tile.width)
        scene["abc".index(tile.scene), rows, columns] = True
        return scene

    expected = {
        (one, other)
        for one, first in zip(tiles, splits, strict=True)
        for other, second in zip(tiles, splits, strict=True)
        if first == "train" and second != "train" and (painted(one) & painted(other)).any()
    }
    assert len(expected) > 3
    assert set(many.shared_pixels()) == expected
    side_by_side = (Tile("a", 0, 0, 8, 8), Tile("a", 0, 8, 8, 8))
    apart = TagTable(NAMES, side_by_side, np.ones((2, 3), np.uint8), ("train", "test"), np.ones(2, bool))
    assert apart.shared_pixels() == []


def test_a_table_survives_writing_and_reading(tmp_path: Path) -> None:
    table().write(tmp_path / "tags.csv")
    again = TagTable.read(tmp_path / "tags.csv", NAMES)
    assert again.tiles == table().tiles
    assert again.splits == table().splits
    assert np.array_equal(again.tags, table().tags)
    assert again.tags.dtype == np.uint8
    assert np.array_equal(again.kept, table().kept)
    lines = (tmp_path / "tags.csv").read_text().split()
    assert lines[0] == "tile,scene,row,column,height,width,split,kept,road,roof,car"
    assert lines[1] == "2_10_00000_00128,2_10,0,128,64,64,train,1,1,0,1"
    assert again.learnt.all()


def test_classes_too_small_to_learn_survive_writing_and_reading(tmp_path: Path) -> None:
    small = replace(table(), too_small=np.array([[1, 0, 0], [0, 0, 0]], dtype=bool))
    small.write(path := tmp_path / "tags.csv")
    again = TagTable.read(path, NAMES)
    assert np.array_equal(again.tags, small.tags)
    assert again.learnt.tolist() == [[False, True, True], [True, True, True]]
    assert again.select("train").learnt.tolist() == [[False, True, True]]
    assert path.read_text().split()[1] == "2_10_00000_00128,2_10,0,128,64,64,train,1,road,1,0,1"
    path.write_text(path.read_text().replace("1,road,", "1,roof,"))
    with pytest.raises(UserError, match="line 2: too_small names roof, which is not a tag of the tile"):
        TagTable.read(path, NAMES)
    replace(small, too_small=small.tags.astype(bool)).write(path)
    with pytest.raises(UserError, match="line 2: all tags of tile 2_10_00000_00128 are too small to learn"):
        TagTable.read(path, NAMES)


def test_tiles_that_show_none_survive_writing_and_reading_and_differ_from_undecided_ones(
    tmp_path: Path,
) -> None:
    tiles = tuple(Tile("a", row, 0, 8, 8) for row in range(5))
    tags = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], np.uint8)
    splits, kept = ("train", "train", "val", "val", "val"), tags.any(axis=1)
    undecided = TagTable(NAMES, tiles, tags, splits, kept)
    assert undecided.decided.tolist() == [True, False, False, True, False]
    none = np.array([False, True, True, False, False])
    for small in (None, np.zeros((5, 3), dtype=bool)):
        replace(undecided, shows_none=none, too_small=small).write(tmp_path / "tags.csv")
        again = TagTable.read(tmp_path / "tags.csv", NAMES)
        assert again.decided.tolist() == [True, True, True, True, False]
        assert again.select("val", decided=True).tiles == tiles[2:4]
        assert again.select("val", tagged=True).tiles == tiles[3:4]
        assert again.select("train", kept=True).tiles == tiles[:1]
        assert again.validation().tiles == tiles[2:4]
        assert again.take(tags[:, 1] == 0).validation().tiles == tiles[:2]
        assert np.array_equal(again.tags, tags)


def test_a_table_by_hand_may_leave_out_names_and_come_from_a_spreadsheet(tmp_path: Path) -> None:
    header = "scene,row,column,height,width,split,car,road,roof"
    (tmp_path / "tags.csv").write_text(f"\ufeff{header}\r\n2_10,0,0,64,64,train,1,0,0\r\n", encoding="utf-8")
    read = TagTable.read(tmp_path / "tags.csv", NAMES)
    assert read.tags.tolist() == [[0, 0, 1]]
    assert read.kept.tolist() == [True]


HEADER = "tile,scene,row,column,height,width,split,kept,road,roof,car"
GOOD = "a_00000_00000,a,0,0,64,64,train,1,1,0,0"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, GOOD, "a_00000_00064,a,0,64,64,64,train,1,0,0,0"], "line 3: tile a_00000_00064 has no tag"),
        ([HEADER, "a_00000_00000,a,0,0,64,64,train,1,1,0,2"], "line 2: car is '2'; give 0 or 1"),
        ([HEADER, "a_00000_00000,a,0,0,64,64,train,yes,1,0,0"], "line 2: kept is 'yes'"),
        ([HEADER, "a_00000_00000,a,-1,0,64,64,train,1,1,0,0"], "line 2: row is '-1'"),
        ([HEADER, "a_00000_00000,a,0,0,0,64,train,1,1,0,0"], "line 2: height and width"),
        (
            [HEADER, "b,a,0,0,64,64,train,1,1,0,0"],
            "line 2: tile is 'b', but its scene, row and column give a_00000_00000",
        ),
        ([HEADER, "a_00000_00000,a,0,0,64,64,training,1,1,0,0"], "line 2: split is 'training'"),
        ([HEADER, GOOD, GOOD], "line 3: tile a_00000_00000 is already in line 2"),
        (
            [HEADER, GOOD, "a_00000_00000,a,0,0,96,96,train,1,0,1,0"],
            "line 3: tile a_00000_00000 is already in line 2",
        ),
        ([HEADER, GOOD + ",1"], "line 2: not as many values"),
        ([HEADER, "a_00000_00000,a,0"], "line 2: not as many values"),
        ([HEADER + ",bus", GOOD + ",1"], "line 1: unknown column 'bus'; the classes are road, roof, car"),
        ([HEADER.replace(",car", ""), GOOD], "line 1: no column car"),
        ([HEADER.replace(",", ";"), GOOD], "line 2: not as many values"),
        ([HEADER + ",car", GOOD + ",1"], "line 1: a column occurs twice"),
        ([HEADER], "has no tiles"),
        ([], "no column"),
    ],
)
def test_mistakes_in_a_table_name_file_and_line(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=f"tags.csv.*{message}"):
        TagTable.read(path, NAMES)


def test_a_file_that_is_no_text_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_bytes(b"image,tags\nstra\xdfe,road\n")
    with pytest.raises(UserError, match=r"tags.csv is not a CSV file in UTF-8.*; save it as CSV UTF-8$"):
        TagTable.read(tmp_path / "tags.csv", NAMES)
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        TagTable.read(tmp_path / "none.csv", NAMES)
