"""Scores of each class's map, thresholded at every threshold.

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
    """Counts the pixels of a tile by the number of thresholds that their value reaches.

    Counts of several tiles can be summed.

    Args:
        maps: (C, H, W) float32.
        reference: (H, W) class indices or 255.

    Returns:
        (C, 2, T + 1) int64: for each class the pixels of other classes (0) and of the class (1), without 255,
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
    """Scores of each class if its pixels are those with a value of at least the threshold.

    Attributes:
        counts: (C, 2, T + 1) int64, sum of `threshold_counts`.
        names: The C class names, in order of class index.
    """

    counts: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union, (C, T); nan for classes in neither reference nor prediction."""
        return ratio(self._correct, self._reference + self._predicted - self._correct)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Fraction of the predicted pixels that are of the class, (C, T); nan if none is predicted."""
        return ratio(self._correct, self._predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Fraction of the pixels of the class that are predicted, (C, T); nan if the reference has none."""
        return ratio(self._correct, np.broadcast_to(self._reference, self._correct.shape))

    def best(self) -> dict[str, tuple[float, float]]:
        """The lowest threshold with the highest IoU, and that IoU, by class name.

        Classes without pixels in the reference are left out.
        """
        iou = self.iou
        places = np.nan_to_num(iou, nan=-1.0).argmax(axis=1)
        return {
            self.names[label]: (float(THRESHOLDS[places[label]]), float(iou[label, places[label]]))
            for label in np.flatnonzero(self._reference[:, 0]).tolist()
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
    def _predicted(self) -> NDArray[np.int64]:
        predicted: NDArray[np.int64] = self._reached.sum(axis=1)
        return predicted

    @property
    def _reference(self) -> NDArray[np.int64]:
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
