"""Conversion of stacks of maps to the rows of a bundle of runs, see `ome.crf.mean_field`, and back."""

import numpy as np
from numpy.typing import NDArray

from ome.crf.lattice import kernel
from ome.crf.simplices import Float
from ome.crf.vectors import LANES

ABSENT = -60.0  # log-probability of the elements of a row that belong to no class
PATCH = 256  # pixels transposed at a time, so that they fit into the cache


def row_width(runs: int, classes: int) -> int:
    """Returns the width W of the rows of a bundle."""
    return -(-classes // LANES) * LANES if runs == 1 else classes * LANES


@kernel
def pack(energy: Float, powers: Float, floor: float, order: NDArray[np.int64], values: Float) -> None:
    """Writes the log-probabilities of runs to rows.

    Args:
        energy: (K, N) log-probabilities.
        powers: (R, K) factors on them, R from 1 to 8.
        floor: Lower limit of the log-probability in all runs.
        order: (N,) the pixel of each row.
        values: (N, W), see `row_width`; written.
    """
    runs, classes = powers.shape
    num_pixels = len(order)
    stride = 1 if runs == 1 else LANES
    values[:] = ABSENT if runs == 1 else 0.0
    for start in range(0, num_pixels, PATCH):
        for label in range(classes):
            for place in range(start, min(start + PATCH, num_pixels)):
                value = energy[label, order[place]]
                for run in range(runs):
                    values[place, label * stride + run] = max(value * powers[run, label], floor)


@kernel
def unpack(values: Float, order: NDArray[np.int64], stack: Float) -> None:
    """Writes the (N, W) rows of a single run, whose pixels are in `order`, to a (K, N) stack."""
    classes, num_pixels = stack.shape
    for start in range(0, num_pixels, PATCH):
        for label in range(classes):
            for place in range(start, min(start + PATCH, num_pixels)):
                stack[label, order[place]] = values[place, label]


@kernel
def unpack_winners(values: Float, order: NDArray[np.int64], winners: NDArray[np.uint8]) -> None:
    """Writes the class of the largest value of each pixel in each run, (R, N); the first of equal values."""
    runs, num_pixels = winners.shape
    stride = 1 if runs == 1 else LANES
    classes = values.shape[1] // stride
    best = np.empty(runs, np.float32)
    winner = np.empty(runs, np.uint8)
    for place in range(num_pixels):
        best[:] = -1.0
        for label in range(classes):
            for run in range(runs):
                value = values[place, label * stride + run]
                if value > best[run]:
                    best[run] = value
                    winner[run] = label
        for run in range(runs):
            winners[run, order[place]] = winner[run]
