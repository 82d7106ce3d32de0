"""How well each class's map separates its pixels from the others, at every threshold.

Names of dimensions: C classes, T = 101 thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.ignore import IGNORE
from ome.scoring.scores import ratio
from ome.scoring.tables import percent

THRESHOLDS: Final = np.linspace(0, 1, 101, dtype=np.float32)
"""(T,) float32: 0, 0.01, ..., 1."""


def threshold_counts(maps: NDArray[np.float32], reference: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts the pixels of a tile by how many thresholds their value reaches; counts of tiles simply add.

    Args:
        maps: (C, H, W) float32.
        reference: (H, W) class indices or 255.

    Returns:
        (C, 2, T + 1) int64: for each class the pixels of other classes and those of its own (255 left out),
        by the number of thresholds t with value >= t.
    """
    counted = reference != IGNORE
    truth = reference[counted]
    bins = len(THRESHOLDS) + 1
    counts = np.empty((len(maps), 2, bins), dtype=np.int64)
    for label, values in enumerate(maps[:, counted]):
        reached = np.searchsorted(THRESHOLDS, values, side="right")
        of_label = (truth == label).astype(np.int64)
        counts[label] = np.bincount(of_label * bins + reached, minlength=2 * bins).reshape(2, bins)
    return counts


@dataclass(frozen=True, eq=False)
class ThresholdCurves:
    """Scores of each class against all others, where a pixel is of the class iff its value is >= t.

    Attributes:
        counts: (C, 2, T + 1) int64, sum of `threshold_counts`.
        names: The C class names, in order of class index.
    """

    counts: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union, (C, T); nan for a class that is neither there nor found."""
        return ratio(self._correct, self._own + self._found - self._correct)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of the found pixels that are of the class, (C, T); nan where none is found."""
        return ratio(self._correct, self._found)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the pixels of the class that are found, (C, T); nan for a class that is not there."""
        return ratio(self._correct, np.broadcast_to(self._own, self._correct.shape))

    def best(self) -> dict[str, tuple[float, float]]:
        """The threshold with the highest IoU, the lower one of two, and that IoU, by class name.

        Classes without pixels in the reference have none and are left out.
        """
        there = self._own[:, 0] > 0
        places = np.nan_to_num(self.iou, nan=-1.0).argmax(axis=1)
        return {
            name: (float(THRESHOLDS[place]), float(self.iou[label, place]))
            for label, (name, place) in enumerate(zip(self.names, places, strict=True))
            if there[label]
        }

    @property
    def _reached(self) -> NDArray[np.int64]:
        """Pixels with value >= t, (C, 2, T)."""
        from_above = np.cumsum(self.counts[:, :, ::-1], axis=2)
        return from_above[:, :, -2::-1]

    @property
    def _correct(self) -> NDArray[np.int64]:
        return self._reached[:, 1]

    @property
    def _found(self) -> NDArray[np.int64]:
        hits: NDArray[np.int64] = self._reached.sum(axis=1)
        return hits

    @property
    def _own(self) -> NDArray[np.int64]:
        of_label: NDArray[np.int64] = self.counts[:, 1].sum(axis=1, keepdims=True)
        return of_label


def threshold_table(curves: ThresholdCurves) -> tuple[list[str], list[list[str]]]:
    """Header and one row for each class and threshold, scores in percent, for `ome.files.write_csv`."""
    scores: Sequence[NDArray[np.float64]] = (curves.iou, curves.precision, curves.recall)
    return ["class", "threshold", "IoU", "precision", "recall"], [
        [name, f"{threshold:.2f}", *(percent(score[label, place]) for score in scores)]
        for label, name in enumerate(curves.names)
        for place, threshold in enumerate(THRESHOLDS)
    ]
