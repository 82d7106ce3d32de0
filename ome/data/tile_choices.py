"""Compares tile sizes and filters by the tiles they would keep; the paper calls that choice decisive."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.data.tag_filter import Drops, coverage, filter_tiles
from ome.data.tiles import tile_scene
from ome.scoring.cooccurrence import cooccurrence, mean_cooccurrence

FACTORS: Final = (0.5, 1.0, 2.0)
"""Sizes and filters in the table, as factors of the configured ones."""
ENOUGH: Final = 20
"""Least number of kept tiles for a class to count as learnable."""


class Layout(NamedTuple):
    """Side of a tile and distance of two neighbours, pixels."""

    size: int
    stride: int


class TileChoice(NamedTuple):
    """Statistics of the training tiles for a tile size and a filter.

    Attributes:
        size: Side of a tile, pixels.
        filter: Least coverage of classes without an override, in [0, 1].
        tiles: Number of all tiles.
        kept: Number of tiles that the filter keeps.
        classes: Number of classes that the classifier learns from at least 20 kept tiles.
        cooccurrence: Mean over the kept tiles, of the classes that are learnt from each, see
            `mean_cooccurrence`; nan where there is no pair.
    """

    size: int
    filter: float
    tiles: int
    kept: int
    classes: int
    cooccurrence: float


def layouts(configured: Layout, largest: int) -> list[Layout]:
    """The sizes to compare: the configured one, and others up to the largest side of a scene."""
    size, stride = configured
    scaled = [Layout(round(size * factor), max(1, round(stride * factor))) for factor in FACTORS]
    return [layout for layout in scaled if layout == configured or 0 < layout.size <= largest]


def coverage_of_tiles(
    read: Callable[[int, int], NDArray[np.uint8]],
    shape: tuple[int, int],
    layout: Layout,
    num_classes: int,
    *,
    cover: bool,
) -> NDArray[np.float64]:
    """Coverage of each class in each tile of a scene: (N, C); see `coverage` and `tile_scene`.

    Args:
        read: `read(row, height)` -> (height, W) uint8, rows of the mask; it is called for each row of tiles.
        shape: Height and width of the scene.
        layout: Size and stride of the tiles.
        num_classes: C.
        cover: See `tile_scene`.
    """
    fractions: list[NDArray[np.float64]] = []
    tiles = tile_scene("", *shape, layout.size, layout.stride, cover=cover)
    for (row, height), side_by_side in groupby(tiles, key=lambda tile: (tile.row, tile.height)):
        rows = read(row, height)
        windows = (rows[:, tile.column : tile.column + tile.width] for tile in side_by_side)
        fractions += [coverage(window, num_classes) for window in windows]
    return np.array(fractions).reshape(-1, num_classes)


def tile_choices(
    covered: Mapping[Layout, Sequence[NDArray[np.float64]]],
    minimum: NDArray[np.float64],
    shown: float,
    drops: Drops,
) -> list[TileChoice]:
    """The table, by size and filter.

    Args:
        covered: Coverage (N, C) in the tiles of each scene, by layout.
        minimum: (C,) configured least coverage of each class; it is scaled with the filter.
        shown: Configured least coverage of classes without an override.
        drops: What the filter drops, see `filter_tiles`.
    """
    rows = []
    for layout, scenes in covered.items():
        fractions = np.concatenate([np.zeros((0, len(minimum))), *scenes])
        for factor in (0.0, *FACTORS):
            filtered = filter_tiles(fractions, np.minimum(factor * minimum, 1.0), drops)
            present, learnt = (fractions > 0)[filtered.kept], ~filtered.too_small[filtered.kept]
            classes = int(((present & learnt).sum(axis=0) >= ENOUGH).sum())
            overlap = mean_cooccurrence(cooccurrence(present, learnt))
            counts = len(fractions), len(present), classes
            rows.append(TileChoice(layout.size, factor * shown, *counts, overlap))
    # As text, in which nan equals nan.
    return list({repr(row): row for row in rows}.values())
