"""Segmentation scores, derived from one confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_of_defined(values: NDArray[np.float64]) -> float:
    """Mean of the values that are not nan; nan if all are."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one confusion matrix, all in [0, 1] (kappa in [-1, 1]).

    A score with a denominator of 0 is nan, never 0, and is left out of the means. Precision divides by the
    predicted pixels (column sums) and recall by the reference pixels (row sums), also for a single class,
    where some published code has them swapped.

    Attributes:
        matrix: (C, C) int64 pixel counts; rows are the reference, columns the prediction.
        names: The C class names, in order of class index.
    """

    matrix: NDArray[np.int64]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.names), len(self.names)):
            raise ValueError(f"matrix {self.matrix.shape} does not fit {len(self.names)} class names")

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union, (C,); nan for classes in neither reference nor prediction."""
        return ratio(self._correct, self._reference + self._predicted - self._correct)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Fraction of the predicted pixels of a class that are right, (C,); nan for unpredicted classes."""
        return ratio(self._correct, self._predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Fraction of the reference pixels of a class that are predicted, (C,); nan for absent classes."""
        return ratio(self._correct, self._reference)

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall (Dice), (C,); nan if `iou` is."""
        return ratio(2 * self._correct, self._reference + self._predicted)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes for which it is defined."""
        return mean_of_defined(self.iou)

    @property
    def mf1(self) -> float:
        """Mean of `f1` over the classes for which it is defined."""
        return mean_of_defined(self.f1)

    @property
    def oa(self) -> float:
        """Overall accuracy: the fraction of counted pixels that are right."""
        return float(ratio(self._correct.sum(), self._total))

    @property
    def kappa(self) -> float:
        """Cohen's kappa: accuracy beyond chance; nan if the accuracy by chance is 1."""
        chance = ratio((self._reference * self._predicted).sum(), self._total**2)
        return float(ratio(self.oa - chance, 1 - chance))

    @property
    def fwiou(self) -> float:
        """Mean of `iou` weighted by the pixels of each class in the reference."""
        present = self._reference > 0
        return float(ratio((self._reference[present] * self.iou[present]).sum(), self._total))

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON: names and matrix, and for other programs the scores, with null for nan."""
        per_class = {"iou": self.iou, "precision": self.precision, "recall": self.recall, "f1": self.f1}
        means = {"miou": self.miou, "mf1": self.mf1, "oa": self.oa, "kappa": self.kappa, "fwiou": self.fwiou}
        return {
            "names": list(self.names),
            "matrix": self.matrix.tolist(),
            **{key: _null_if_nan(value) for key, value in means.items()},
            **{key: [_null_if_nan(float(value)) for value in values] for key, values in per_class.items()},
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Scores":
        """Builds the scores from the names and the matrix of `to_dict`."""
        return cls(np.array(value["matrix"], dtype=np.int64), tuple(value["names"]))

    @property
    def _correct(self) -> NDArray[np.float64]:
        return np.diag(self.matrix).astype(np.float64)

    @property
    def _reference(self) -> NDArray[np.float64]:
        return np.asarray(self.matrix.sum(axis=1), dtype=np.float64)

    @property
    def _predicted(self) -> NDArray[np.float64]:
        return np.asarray(self.matrix.sum(axis=0), dtype=np.float64)

    @property
    def _total(self) -> float:
        return float(self.matrix.sum())


def ratio(numerator: Any, denominator: Any) -> NDArray[np.float64]:  # noqa: ANN401 - scalars and arrays alike
    """Quotient of arrays or scalars, float64; nan if the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient = np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
    return np.where(np.asarray(denominator) == 0, np.nan, quotient)


def _null_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
