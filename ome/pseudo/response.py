"""Response scaling: how much the class of a pixel varies when the map of one class is raised to powers.

OME (Li, Zhang, Xiao, TGRS 2023), see `ome.pseudo.uncertainty`.

Names of dimensions: K classes present in the CRF's mask, S response scales, R runs of the CRF.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ome.crf.inputs import Crf
from ome.crf.simplices import Float

LARGEST_VARIANCE: Final = 0.25  # of a boolean
Normalisation = Literal["tile", "absolute"]


def response_variance(crf: Crf, maps: Float, scales: Sequence[float]) -> NDArray[np.float64]:
    """Measures how much the class of a pixel varies when the maps of single classes are raised to powers.

    Args:
        crf: The CRF of the tile's image.
        maps: (K, H, W) float32 CAMs of the present classes.
        scales: The S powers.

    Returns:
        (H, W) float64 in [0, 0.25]: the variance over the powers of [argmax = c] when the map of class c is
        raised to them, maximum over classes c.
    """
    if len(maps) < 2:  # none in a tile without valid pixels
        return np.zeros(maps.shape[1:])
    powers, runs = response_runs(len(maps), scales)
    return variance_of_votes(count_votes(crf.winners(maps, powers), runs), len(scales))


def response_runs(classes: int, scales: Sequence[float]) -> tuple[Float, list[list[int]]]:
    """The runs of the CRF for response scaling.

    Args:
        classes: Number of present classes K.
        scales: The S powers.

    Returns:
        (R, K) float32 powers of the maps in each run, and for each class the S runs that scale its map.
    """
    # With power 1 the CRF's result is the same for every class, so it is computed once.
    powers = [np.ones(classes, np.float32)] if 1.0 in scales else []
    runs_of_class: list[list[int]] = []
    for label in range(classes):
        runs: list[int] = []
        for scale in scales:
            runs.append(0 if scale == 1.0 else len(powers))
            if scale != 1.0:
                powers.append(np.where(np.arange(classes) == label, scale, 1.0).astype(np.float32))
        runs_of_class.append(runs)
    return np.stack(powers), runs_of_class


def count_votes(winners: Any, runs_of_class: Sequence[Sequence[int]]) -> list[Any]:  # noqa: ANN401
    """Counts for each class the runs that scale its map and in which it wins.

    Args:
        winners: (R, ...) integer class that wins in each run, an array or a tensor on any device.
        runs_of_class: See `response_runs`.

    Returns:
        K arrays (...) of integers in 0..S.
    """
    return [(winners[list(runs)] == label).sum(0) for label, runs in enumerate(runs_of_class)]


def variance_of_votes(votes: Iterable[NDArray[np.integer]], scales: int) -> NDArray[np.float64]:
    """The variance of [the class wins] over S runs, maximum over classes: float64 in [0, 0.25].

    Votes of k and of S - k give the same number, without rounding that a tile's stretch would enlarge.
    """
    products: NDArray[np.int64] = np.max([count * (scales - count) for count in votes], axis=0)
    return products / scales**2


def certainty_weight(
    variance: NDArray[np.float64], normalisation: Normalisation, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Converts variances to weights floor(255 (1 - u)).

    Args:
        variance: (H, W) in [0, 0.25].
        normalisation: "absolute": u is the variance / 0.25. "tile": u is the variance stretched to 0..1 over
            the tile's valid pixels; if it is constant, as "absolute", since pixels in doubt everywhere are
            not certain.
        valid: (H, W) bool, false for pixels without data; None if there are none.

    Returns:
        (H, W) uint8; 0 for pixels without data.

    Raises:
        ValueError: The normalisation is unknown.
    """
    if normalisation not in {"tile", "absolute"}:
        raise ValueError(f'normalisation is "tile" or "absolute", not "{normalisation}"')
    valid = np.ones(variance.shape, bool) if valid is None else valid
    counted = variance[valid]
    least, largest = counted.min(initial=LARGEST_VARIANCE), counted.max(initial=0.0)
    stretched = normalisation == "tile" and largest > least
    uncertainty = (variance - least) / (largest - least) if stretched else variance / LARGEST_VARIANCE
    return np.floor(255.0 * (1.0 - np.where(valid, uncertainty, 1.0))).astype(np.uint8)
