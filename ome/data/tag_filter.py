"""Tags of tiles from their masks, and the filter for tiles that are clear enough to train the classifier."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.errors import UserError

Drops = Literal["class", "tile"]
"""What the filter drops if a class is too small in a tile: that class from the tile's loss, or the tile."""


def coverage(mask: NDArray[np.uint8], num_classes: int) -> NDArray[np.float64]:
    """Fraction of a tile that each class covers, (C,) float64 in [0, 1].

    The denominator is all H W pixels of the mask (H, W) uint8, including ignored ones with an index >= C
    (255): otherwise a sliver of a class in a tile full of clutter would count as clearly visible.
    """
    counts = np.bincount(mask.ravel(), minlength=256)[:num_classes]
    return counts.astype(np.float64) / mask.size


def tags_of(mask: NDArray[np.uint8], num_classes: int) -> NDArray[np.uint8]:
    """Image-level tags of a tile: (C,) uint8, 1 iff at least one pixel is of the class."""
    return (coverage(mask, num_classes) > 0).astype(np.uint8)


def minimum_coverage(
    names: Sequence[str], minimum: float, overrides: Mapping[str, float]
) -> NDArray[np.float64]:
    """Least coverage that each class must have where it is present.

    Args:
        names: Class names, in index order.
        minimum: Default for classes without an override, e.g. 0.1.
        overrides: Values by class name, e.g. 0.025 for cars.

    Returns:
        (C,) float64 in [0, 1].

    Raises:
        UserError: When an override names no class, or a value is outside [0, 1].
    """
    if unknown := sorted(set(overrides) - set(names)):
        raise UserError(
            f"dataset.filter.overrides: {unknown[0]} is not a class; the classes are {', '.join(names)}"
        )
    values = [float(overrides.get(name, minimum)) for name in names]
    for name, value in zip(names, values, strict=True):
        if not 0 <= value <= 1:
            raise UserError(f"dataset.filter: {value} for {name} is not a fraction of a tile; give 0 to 1")
    return np.asarray(values)


class Filtered(NamedTuple):
    """Outcome of the filter over N tiles.

    Attributes:
        kept: (N,) bool, tiles that train the classifier.
        too_small: (N, C) bool, classes that are present but too small to learn from.
        empty: Tiles in which no class is present at all; they are dropped as well.
    """

    kept: NDArray[np.bool_]
    too_small: NDArray[np.bool_]
    empty: int

    @property
    def dropped(self) -> NDArray[np.int64]:
        """(C,) tiles in which the class is too small; a tile with several such classes counts for each."""
        return np.asarray(self.too_small.sum(axis=0), dtype=np.int64)


def filter_tiles(covered: NDArray[np.float64], minimum: NDArray[np.float64], drops: Drops) -> Filtered:
    """Finds the classes that are too small in a tile, and the tiles that can be learnt from without them.

    Args:
        covered: (N, C) float64, coverage of each class in each tile.
        minimum: (C,) float64, least coverage of a present class.
        drops: "class": a tile is kept if any of its classes is large enough, and the others take no part in
            its loss; "tile": only tiles in which no class is too small are kept (OME, section 3.1).
    """
    present = covered > 0
    too_small = present & (covered < minimum)
    kept = np.asarray((present & ~too_small).any(axis=1))
    if drops == "tile":
        kept &= ~too_small.any(axis=1)
    return Filtered(kept, too_small, int((~present.any(axis=1)).sum()))
