"""Sentences of the report, against counts written by hand."""

from pathlib import Path

import pytest

from ome.files import read_json, write_csv, write_json
from ome.report.remarks import remarks


def labels(folder: Path, tiles: int, counts: dict[str, int], overlap: list[list[float]]) -> Path:
    of_tiles = {"tiles_with_class": counts, "kept_tiles_with_class": counts}
    write_json(folder / "labels.json", of_tiles | {"tiles_that_teach_class": dict.fromkeys(counts, tiles)})
    rows = [[name, *row] for name, row in zip(counts, overlap, strict=True)]
    write_csv(folder / "cooccurrence.csv", ["class", *counts], rows)
    return folder


@pytest.mark.parametrize(
    ("tiles", "counts", "overlap", "expected"),
    [
        (90, {"a": 50, "b": 20}, [[1, 0.2], [0.25, 1]], []),
        (
            90,
            {"a": 50, "b": 19},
            [[1, 0.2], [0.25, 1]],
            ["in fewer than 20 tiles, so easily confused: b (19)"],
        ),
        (
            30,
            {"a": 19, "b": 25, "c": 12},
            [[1, 0.2, 0.2], [0.25, 1, 0.2], [0.2, 0.2, 1]],
            ["in fewer than 20 tiles, so easily confused: a (19), c (12)"],
        ),
        (90, {"a": 50, "b": 0}, [[1, 0], [0, 0]], ["b: not in any training tile, so it is never predicted"]),
        (90, {"a": 50, "b": 1}, [[1, 0.2], [1, 1]], ["b: 1 of 90 tiles, too few to learn it from"]),
        (
            50,
            {"a": 50, "b": 30},
            [[1, 0.6], [1, 1]],
            ["a: in every tile, so the tags do not show where it is absent"],
        ),
        (
            90,
            {"a": 50, "b": 50},
            [[1, 1], [1, 1]],
            ["a and b always occur together: tags alone cannot distinguish them"],
        ),
        (
            200,
            {"a": 190, "b": 90},
            [[1, 0.4], [0.9, 1]],
            ["a: in 190 of 200 tiles, so the tags hardly show where it is absent"],
        ),
        (99, {"a": 40, "b": 40}, [[1, 0.97], [0.97, 1]], ["a and b nearly always occur together"]),
    ],
)
def test_what_tags_imply(
    tmp_path: Path, tiles: int, counts: dict[str, int], overlap: list[list[float]], expected: list[str]
) -> None:
    lines = remarks(labels(tmp_path, tiles, counts, overlap), {"zero_weight": 0.4})
    assert len(lines) == len(expected)
    assert all(line.startswith(begin) for line, begin in zip(lines, expected, strict=True))


def test_what_weights_imply(tmp_path: Path) -> None:
    folder = labels(tmp_path, 90, {"a": 50, "b": 40}, [[1, 0.2], [0.25, 1]])
    assert remarks(folder, None) == []
    assert remarks(folder, {"zero_weight": 0.62}) == [
        "62 % of the pixels of the pseudo masks have weight 0: the CAMs are uncertain"
    ]


def test_a_class_without_a_pixel_of_the_pseudo_masks_is_named(tmp_path: Path) -> None:
    folder = labels(tmp_path, 90, {"a": 50, "b": 40}, [[1, 0.2], [0.25, 1]])
    assert remarks(folder, {"mask_pixels": {"a": 9, "b": 0}}) == [
        "b: no pixel of the pseudo masks has it, so the segmenter cannot learn it"
    ]


def test_classes_that_are_too_small_count_in_no_tile(tmp_path: Path) -> None:
    """The first is too small wherever it is, the second in forty tiles: no tile teaches its absence."""
    folder = labels(tmp_path, 90, {"a": 0, "b": 50, "c": 40}, [[1, 0, 0], [0, 1, 0.2], [0, 0.25, 1]])
    summary = read_json(folder / "labels.json") | {"tiles_with_class": {"a": 3, "b": 90, "c": 40}}
    write_json(folder / "labels.json", summary | {"tiles_that_teach_class": {"a": 60, "b": 50, "c": 90}})
    assert remarks(folder, None) == [
        "a: too small to learn from in all 3 training tiles that show it",
        "b: in every tile, so the tags do not show where it is absent",
    ]


@pytest.mark.parametrize(
    ("shown", "given", "tags"),
    [
        ((4, 5), (9, 0), "a"),
        ((4, 5), (0, 0), "none"),
        ((4, 5), (9, 9), "a, b"),
        ((4, 5), (9, 1), None),
        ((9, 0), (9, 0), None),
        ((9, 9), (0, 0), None),
    ],
)
def test_a_classifier_that_says_the_same_of_every_image_is_named(
    tmp_path: Path, shown: tuple[int, int], given: tuple[int, int], tags: str | None
) -> None:
    """Unless all images do show the same."""
    folder = labels(tmp_path, 90, {"a": 50, "b": 40}, [[1, 0.2], [0.25, 1]])
    rows = [["ab"[k], shown[k], given[k], 0, 9] for k in range(2)]
    write_csv(tmp_path / "tag_scores.csv", ["class", "shown", "given", "right", "tiles"], rows)
    lines = remarks(folder, None, tmp_path)
    assert lines == [] if tags is None else f"all 9 tiles of val get the tags {tags}; train it" in lines[0]
