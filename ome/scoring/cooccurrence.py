"""Co-occurrence of classes in tiles: classes that always co-occur cannot be learnt from tags."""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cooccurrence(tags: NDArray[Any], learnt: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Conditional probability of one class in a tile given another.

    Args:
        tags: (N, C) of 0 and 1 (any dtype), the classes of N tiles.
        learnt: (N, C), the classes of each tile that count; a pair counts in the tiles in which both do. None
            for all.

    Returns:
        (C, C) float64, entry [i, j] = P(class j present | class i present), in [0, 1]; the diagonal is 1.
        The row of a class that occurs in no tile is nan, and so is a pair that no tile tells anything of.

    Raises:
        ValueError: `tags` is not two-dimensional or holds anything but 0 and 1.
    """
    if tags.ndim != 2:
        raise ValueError(f"tags have shape {tags.shape}, must be (tiles, classes)")
    if not np.isin(tags, (0, 1)).all():
        raise ValueError("tags must be 0 or 1")
    counted = np.ones(tags.shape) if learnt is None else learnt.astype(np.float64)
    present = tags * counted
    occurrences = present.T @ counted
    together = present.T @ present
    return np.divide(together, occurrences, out=np.full_like(together, np.nan), where=occurrences > 0)


def mean_cooccurrence(matrix: NDArray[np.float64]) -> float:
    """Mean P(j | i) over the ordered pairs of classes that occur.

    A low value is better for the classifier: with 0 each tile has a single class, and its tag labels every
    pixel; with 1 every tile has all classes, and the tags do not distinguish them.

    Args:
        matrix: (C, C) from `cooccurrence`.

    Returns:
        A value in [0, 1]; nan if fewer than two classes occur.
    """
    occurs = ~np.isnan(np.diag(matrix))
    num_occurring = int(occurs.sum())
    if num_occurring < 2:
        return float("nan")
    pairs = matrix[np.ix_(occurs, occurs)][~np.eye(num_occurring, dtype=bool)]
    known = pairs[~np.isnan(pairs)]
    return float(known.mean()) if len(known) else float("nan")


def inseparable(names: Sequence[str], tags: NDArray[Any], learnt: NDArray[np.bool_]) -> list[str]:
    """A line for what tags cannot teach: a single class, and classes that no training tile tells apart.

    Args:
        names: Names of the C classes.
        tags: (N, C) of 0 and 1, the classes of the tiles that train the classifier.
        learnt: (N, C), whether the classifier learns the class from the tile.
    """
    tiles, shown = f"the {len(tags)} training tiles", np.asarray(tags.any(axis=0))
    learnable = np.asarray((tags & learnt).any(axis=0))
    small = compress(names, shown & ~learnable)
    lines = [f"{name} is too small in all of {tiles} that show it, so it is not learnt" for name in small]
    occurring = np.flatnonzero(learnable).tolist()
    if len(occurring) == 1:
        where = f"{names[occurring[0]]} is the only class that is learnt from {tiles}"
        return [*lines, f"{where}, so nearly every pixel of a map will be it: tag what else the images show"]
    while occurring:
        first = occurring[0]
        same = [one for one in occurring if _alike(tags, learnt, first, one)]
        occurring = [one for one in occurring if one not in same]
        if len(same) > 1:
            lines.append(
                f"{', '.join(names[one] for one in same)} have the same tags in all of {tiles}, which cannot "
                "teach the difference: tag images that show one without the others, or use one class for all"
            )
    return lines


def _alike(tags: NDArray[Any], learnt: NDArray[np.bool_], first: int, second: int) -> bool:
    """Whether two classes have the same tags wherever both are learnt."""
    both = learnt[:, first] & learnt[:, second]
    return bool((tags[both, first] == tags[both, second]).all())
