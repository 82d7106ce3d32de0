"""Calibration of class probabilities with a temperature.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

Names of dimensions: N pixels, C classes.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import Tensor

RANGE: Final = (0.05, 20.0)
"""Smallest and largest temperature."""
LEAST: Final = 1e-30
"""Replaces probabilities of 0."""
RANGES: Final = 15
"""Number of equal ranges of confidence."""


def fit_temperature(probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> float:
    """The temperature T for which the probabilities p^(1/T), scaled to sum to 1, have the lowest log loss.

    The loss is convex in 1/T, so there is one minimum.

    Args:
        probabilities: (N, C) float32, summing to 1 over the classes.
        labels: (N,) class indices, N >= 1.

    Returns:
        T within `RANGE`; above 1 if the probabilities are overconfident.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), LEAST))
    of_label = logits[np.arange(len(labels)), labels]

    def loss(sharpness: float) -> float:
        return float((logsumexp(sharpness * logits, axis=1) - sharpness * of_label).mean())

    lowest, highest = RANGE
    minimum = minimize_scalar(
        loss, bounds=(1 / highest, 1 / lowest), method="bounded", options={"xatol": 1e-5}
    )
    return round(1 / float(minimum.x), 4)


def with_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """The calibrated probabilities: p^(1/T), scaled to sum to 1.

    Args:
        probabilities: (C, ...) float32; pixels without a prediction are 0 for all classes and stay so.
        temperature: T, above 0.

    Returns:
        (C, ...) float32.
    """
    return (probabilities.log() / temperature).softmax(0).nan_to_num_(nan=0.0)


def calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> float:
    """The expected calibration error: the mean difference of confidence and accuracy.

    Args:
        probabilities: (N, C) float32.
        labels: (N,) class indices, N >= 1.

    Returns:
        The mean of |accuracy - confidence| over the ranges, weighted by their pixels, in [0, 1].
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    ranges = np.minimum((confidence * RANGES).astype(np.int64), RANGES - 1)
    gaps = np.bincount(ranges, right - confidence.astype(np.float64), minlength=RANGES)
    return float(np.abs(gaps).sum() / len(labels))
