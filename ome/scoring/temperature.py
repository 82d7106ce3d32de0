"""Calibration of class probabilities by one temperature.

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
"""Temperatures that are tried."""
LEAST: Final = 1e-30
"""Probability that stands for 0."""


def fit_temperature(probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> float:
    """The temperature T for which the probabilities p^(1/T), scaled to sum to 1, explain the labels best.

    Their mean of -log of the label's probability is smallest; it is convex in 1/T and has one minimum.

    Args:
        probabilities: (N, C) float32, summing to 1 over the classes.
        labels: (N,) class indices, N >= 1.

    Returns:
        T within `RANGE`; above 1 where the probabilities are too sure.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), LEAST))
    of_label = logits[np.arange(len(labels)), labels]

    def loss(sharpness: float) -> float:
        return float((logsumexp(sharpness * logits, axis=1) - sharpness * of_label).mean())

    lowest, highest = RANGE
    found = minimize_scalar(loss, bounds=(1 / highest, 1 / lowest), method="bounded", options={"xatol": 1e-5})
    return round(1 / float(found.x), 4)


def with_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """The calibrated probabilities: p^(1/T), scaled to sum to 1.

    Args:
        probabilities: (C, ...) float32, the classes first; all 0 where nothing was predicted, which stays.
        temperature: T, above 0.

    Returns:
        (C, ...) float32.
    """
    return (probabilities.log() / temperature).softmax(0).nan_to_num_(nan=0.0)


def calibration_error(
    probabilities: NDArray[np.float32], labels: NDArray[np.integer], bins: int = 15
) -> float:
    """The expected calibration error: how far confidence is from accuracy in equal ranges of confidence.

    Args:
        probabilities: (N, C) float32.
        labels: (N,) class indices, N >= 1.
        bins: Number of ranges.

    Returns:
        The mean of |accuracy - confidence| over ranges, weighted by their pixels, in 0..1.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    ranges = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(ranges, right - confidence.astype(np.float64), minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
