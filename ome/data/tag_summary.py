"""Counts of tiles and tags, which stage labels writes and prints, and the report reads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.data.tag_filter import Filtered
from ome.data.tags import TagTable
from ome.scoring.cooccurrence import cooccurrence, mean_cooccurrence


def tag_summary(table: TagTable, filtered: Filtered) -> dict[str, Any]:
    """Numbers of tiles; counts by class, co-occurrence and `filtered` are those of the training tiles.

    `kept` counts and co-occurrence are of the tags that the classifier learns from; `tiles_that_teach_class`
    are those of which it learns that the class is there or is not.
    """
    train = table.select("train")
    kept = table.select("train", kept=True)
    return {
        "tiles": len(table.tiles),
        "train_tiles": len(train.tiles),
        "kept_train_tiles": int(train.kept.sum()),
        "empty_tiles": filtered.empty,
        "tiles_with_class": by_class(table, train.tags.sum(axis=0)),
        "kept_tiles_with_class": by_class(table, (kept.tags & kept.learnt).sum(axis=0)),
        "tiles_that_teach_class": by_class(table, kept.learnt.sum(axis=0)),
        "dropped_for_class": by_class(table, filtered.dropped),
        "mean_cooccurrence": _mean_cooccurrence(cooccurrence(train.tags)),
        "kept_mean_cooccurrence": _mean_cooccurrence(cooccurrence(kept.tags, kept.learnt)),
    }


def _mean_cooccurrence(matrix: NDArray[np.float64]) -> float | None:
    """Mean co-occurrence of the classes; None with fewer than two classes."""
    mean = mean_cooccurrence(matrix)
    return None if np.isnan(mean) else mean


def by_class(table: TagTable, counts: NDArray[Any]) -> dict[str, int]:
    """Counts (C,) by the names of the classes."""
    return {name: int(count) for name, count in zip(table.names, counts, strict=True)}
