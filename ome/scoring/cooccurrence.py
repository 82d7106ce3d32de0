"""Co-occurrence of classes in tiles: classes that always co-occur cannot be learnt from tags."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cooccurrence(tags: NDArray[Any]) -> NDArray[np.float64]:
    """Conditional probability of one class in a tile given another.

    Args:
        tags: (N, C) of 0 and 1 (any dtype), the classes of N tiles.

    Returns:
        (C, C) float64, entry [i, j] = P(class j present | class i present), in [0, 1]; the diagonal is 1.
        The row of a class that occurs in no tile is nan.

    Raises:
        ValueError: `tags` is not two-dimensional or holds anything but 0 and 1.
    """
    if tags.ndim != 2:
        raise ValueError(f"tags have shape {tags.shape}, must be (tiles, classes)")
    if not np.isin(tags, (0, 1)).all():
        raise ValueError("tags must be 0 or 1")
    present = tags.astype(np.float64)
    together = present.T @ present
    occurrences = np.diag(together)[:, None]
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
    pairs = matrix[np.ix_(occurs, occurs)]
    return float((pairs.sum() - np.trace(pairs)) / (num_occurring * (num_occurring - 1)))


def inseparable(names: Sequence[str], tags: NDArray[Any]) -> list[str]:
    """A line for what tags cannot teach: a single class, and classes that no training tile tells apart.

    Args:
        names: Names of the C classes.
        tags: (N, C) of 0 and 1, the classes of the tiles that train the classifier.
    """
    occurring = [place for place in range(len(names)) if tags[:, place].any()]
    if len(occurring) == 1:
        where = f"{names[occurring[0]]} is the only class of the {len(tags)} training tiles"
        return [f"{where}, so every pixel of a map will be it: tag what else the images show"]
    alike: dict[bytes, list[str]] = {}
    for place in occurring:
        alike.setdefault(tags[:, place].tobytes(), []).append(names[place])
    return [
        f"{', '.join(same)} have the same tags in all {len(tags)} training tiles, which cannot teach the "
        "difference: tag images that show one without the others, or use one class for all"
        for same in alike.values()
        if len(same) > 1
    ]
