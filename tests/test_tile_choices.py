"""The table of tile sizes and filters against counting by hand."""

import math

import numpy as np
import pytest

from ome.data.tile_choices import Layout, TileChoice, coverage_of_tiles, layouts, tile_choices


def test_sizes_are_half_and_twice_within_the_scenes() -> None:
    assert layouts(Layout(64, 32), 512) == [(32, 16), (64, 32), (128, 64)]
    assert layouts(Layout(64, 64), 100) == [(32, 32), (64, 64)]
    assert layouts(Layout(64, 64), 50) == [(32, 32), (64, 64)]
    assert layouts(Layout(1, 1), 50) == [(1, 1), (2, 2)]


def test_tiles_classes_and_overlap_are_counted() -> None:
    # 8 x 8 pixels: the left half is class 0, the right half class 1, with a pixel of class 2 in it.
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:, 4:] = 1
    mask[0, 7] = 2
    layouts_ = (Layout(4, 4), Layout(8, 8))
    read = lambda row, height: mask[row : row + height]  # noqa: E731 - one line
    covered = {layout: [coverage_of_tiles(read, (8, 8), layout, 3, cover=True)] * 10 for layout in layouts_}
    rows = tile_choices(covered, np.array([0.1, 0.1, 0.05]), 0.1, "tile")
    small, large = rows[:4], rows[4:]
    # Four tiles a scene: twice {0}, once {1}, once {1, 2} with 1 of 16 pixels of class 2.
    assert small[0] == TileChoice(4, 0.0, 40, 40, 2, small[0].cooccurrence)
    assert small[0].cooccurrence == (0 + 0 + 0 + 0.5 + 0 + 1) / 6
    assert small[1][:5] == (4, 0.05, 40, 40, 2)
    assert small[2][:5] == (4, 0.1, 40, 40, 2)  # the override of class 2 is 0.05
    assert small[3][:5] == (4, 0.2, 40, 30, 1)
    assert small[3].cooccurrence == 0
    # One tile a scene with all three classes, of which class 2 has 1 of 64 pixels.
    assert [row[:5] for row in large] == [
        (8, 0.0, 10, 10, 0),
        (8, 0.05, 10, 0, 0),
        (8, 0.1, 10, 0, 0),
        (8, 0.2, 10, 0, 0),
    ]
    assert large[0].cooccurrence == 1
    assert math.isnan(large[1].cooccurrence)


def test_a_class_that_is_left_out_does_not_lower_the_overlap_of_the_others() -> None:
    """Two classes always come together, the second covers 2 to 30 %; the third is alone."""
    fractions = np.linspace(0.02, 0.3, 50)[:, None]
    together = np.hstack([1 - fractions, fractions, 0 * fractions])
    covered = {Layout(8, 8): [np.vstack([together, np.tile([0.0, 0.0, 1.0], (50, 1))])]}
    for row in tile_choices(covered, np.full(3, 0.1), 0.1, "class"):
        assert (row.kept, row.cooccurrence) == (100, pytest.approx(1 / 3))


def test_filters_without_an_effect_are_one_row_each() -> None:
    """A single class has no pair: its overlap is nan, which equals no other nan."""
    covered = {Layout(8, 8): [np.ones((30, 1))]}
    rows = tile_choices(covered, np.zeros(1), 0.0, "class")
    assert [row[:5] for row in rows] == [(8, 0.0, 30, 30, 1)]
