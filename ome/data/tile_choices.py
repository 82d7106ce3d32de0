"""What other tile sizes and filters would leave: the choice that the paper calls decisive, as a table."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.data.tags import coverage, filter_tiles
from ome.data.tiles import tile_scene
from ome.scoring.cooccurrence import cooccurrence, mean_cooccurrence

FACTORS: Final = (0.5, 1.0, 2.0)
"""Sizes and filters in the table, as factors of those that are set."""

ENOUGH: Final = 20
"""Kept tiles from which on a class counts as one that can be learnt."""


class Layout(NamedTuple):
    """Side of a tile and distance of two neighbours, pixels."""

    size: int
    stride: int


class TileChoice(NamedTuple):
    """What a tile size and a filter leave of the training scenes.

    Attributes:
        size: Side of a tile, pixels.
        filter: The least coverage of the classes without one of their own, in [0, 1].
        tiles: All tiles.
        kept: Those that the filter keeps.
        classes: Classes in at least 20 kept tiles.
        cooccurrence: Mean over the kept tiles, see `mean_cooccurrence`; nan where there is no pair.
    """

    size: int
    filter: float
    tiles: int
    kept: int
    classes: int
    cooccurrence: float


def layouts(own: Layout, largest: int) -> list[Layout]:
    """The sizes to compare; none beyond the largest side of a scene but the one that is set."""
    scaled = [Layout(round(own.size * factor), max(1, round(own.stride * factor))) for factor in FACTORS]
    return [layout for layout in scaled if layout == own or 0 < layout.size <= largest]


def coverage_of_tiles(
    mask: NDArray[np.uint8], layout: Layout, num_classes: int, *, cover: bool
) -> NDArray[np.float64]:
    """Coverage of each class in each tile of a scene: (N, C); see `coverage` and `tile_scene`."""
    height, width = mask.shape
    tiles = tile_scene("", height, width, layout.size, layout.stride, cover=cover)
    windows = (mask[t.row : t.row + t.height, t.column : t.column + t.width] for t in tiles)
    return np.array([coverage(window, num_classes) for window in windows]).reshape(-1, num_classes)


def tile_choices(
    covered: Mapping[Layout, Sequence[NDArray[np.float64]]], minimum: NDArray[np.float64], shown: float
) -> list[TileChoice]:
    """The table, by size and filter.

    Args:
        covered: Coverage (N, C) in the tiles of each scene, by layout.
        minimum: (C,) least coverage of each class, as it is set; scaled with the filter.
        shown: That of the classes without one of their own.
    """
    rows = []
    for layout, scenes in covered.items():
        shares = np.concatenate([np.zeros((0, len(minimum))), *scenes])
        for factor in (0.0, *FACTORS):
            kept = shares[filter_tiles(shares, np.minimum(factor * minimum, 1.0)).kept] > 0
            classes = int((kept.sum(axis=0) >= ENOUGH).sum())
            overlap = mean_cooccurrence(cooccurrence(kept.astype(np.uint8)))
            rows.append(TileChoice(layout.size, factor * shown, len(shares), len(kept), classes, overlap))
    return list(dict.fromkeys(rows))
