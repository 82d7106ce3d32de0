"""Compares tile sizes and filters by the tiles they would keep; the paper calls that choice decisive."""

from collections.abc import Mapping, Sequence
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
    mask: NDArray[np.uint8], layout: Layout, num_classes: int, *, cover: bool
) -> NDArray[np.float64]:
    """Coverage of each class in each tile of a scene: (N, C); see `coverage` and `tile_scene`."""
    height, width = mask.shape
    tiles = tile_scene("", height, width, layout.size, layout.stride, cover=cover)
    windows = (mask[t.row : t.row + t.height, t.column : t.column + t.width] for t in tiles)
    return np.array([coverage(window, num_classes) for window in windows]).reshape(-1, num_classes)


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
