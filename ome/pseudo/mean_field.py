"""Mean-field inference of a fully connected CRF for a bundle of runs.

A bundle's values are rows of W float32, W a multiple of 8, one row a pixel. With several runs, class k of
run r is at 8 k + r: a bundle holds up to eight, and each vector is one class of all of them. A single run
has class k at k instead. Either way one pass over the lattices serves all values of a row.

Probabilities sum to 1, so the messages of all classes sum to what a pixel hears where every class is certain
(its agreement, known beforehand). In a bundle of several runs the last class therefore never goes through the
lattices: its message is what the others leave.

Names of dimensions: N pixels, K classes, V lattice vertices, U values a vertex carries.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.pseudo.lattice import Lattice, Place, blur, inner_kernel, kernel, prefetch_sums, slice8, splat8
from ome.pseudo.simplices import Float
from ome.pseudo.vectors import (
    LANES,
    add8,
    exp8,
    fill8,
    load8,
    multiply8,
    reciprocal8,
    store8,
    subtract8,
    sum8,
)

EXP_RANGE = 80.0  # exp of this, summed over classes, is still a float32
ABSENT = -60.0  # log-probability of the places of a row that hold no class
AHEAD = 4  # pixels by which updates prefetch
PATCH = 256  # pixels transposed at a time, few enough for the cache

Lattices = tuple[Lattice, Lattice]  # Gaussian, bilateral
Sums = tuple[Float, Float]  # flat (V * U,) vertex values of the Gaussian and of the bilateral lattice


class Flags(NamedTuple):
    """How an update differs.

    Attributes:
        single: The rows hold a single run.
        stabilise: Energies may exceed `EXP_RANGE`.
        first: Nothing has been heard yet.
        last: The probabilities are the result.
    """

    single: bool
    stabilise: bool
    first: bool
    last: bool


@kernel
def pack(energy: Float, order: NDArray[np.int64], values: Float) -> None:
    """Lays (R, K, N) log-probabilities out in (N, W) rows, pixels in `order`; R is 1 to 8."""
    runs, classes, num_pixels = energy.shape
    stride = 1 if runs == 1 else LANES
    values[:] = ABSENT if runs == 1 else 0.0
    for start in range(0, num_pixels, PATCH):
        for label in range(classes):
            for run in range(runs):
                for place in range(start, min(start + PATCH, num_pixels)):
                    values[place, label * stride + run] = energy[run, label, order[place]]


@kernel
def unpack(values: Float, order: NDArray[np.int64], stacks: Float) -> None:
    """Writes (N, W) rows, pixels in `order`, to (R, K, N) stacks."""
    runs, classes, num_pixels = stacks.shape
    stride = 1 if runs == 1 else LANES
    for start in range(0, num_pixels, PATCH):
        for label in range(classes):
            for run in range(runs):
                for place in range(start, min(start + PATCH, num_pixels)):
                    stacks[run, label, order[place]] = values[place, label * stride + run]


def row_width(runs: int, classes: int) -> int:
    """Returns W for a bundle of `runs` runs."""
    return -(-classes // LANES) * LANES if runs == 1 else classes * LANES


@kernel
def subtract_maximum(energy: Float, lanes: int) -> None:
    """Shifts every run's (K * lanes,) energies to a maximum of 0, and cuts them where exp is 0 anyway."""
    for run in range(lanes):
        largest = energy[run]
        for place in range(run, len(energy), lanes):
            largest = max(largest, energy[place])
        for place in range(run, len(energy), lanes):
            energy[place] = max(energy[place] - largest, np.float32(-EXP_RANGE))


@inner_kernel
def softmax(energy: Float, single: bool) -> None:
    """Turns a pixel's (W,) energies into probabilities, over the whole row if it holds a single run."""
    total = fill8(np.float32(0.0))
    for start in range(0, len(energy), LANES):
        powers = exp8(load8(energy, start))
        store8(energy, start, powers)
        total = add8(total, powers)
    if single:
        total = fill8(sum8(total))
    factors = reciprocal8(total)
    for start in range(0, len(energy), LANES):
        store8(energy, start, multiply8(load8(energy, start), factors))


@kernel
def advance(lattices: Lattices, old: Sums, new: Sums, values: Float, agreement: Float, flags: Flags) -> None:
    """Makes one update: reads messages from the `old` sums and splats probabilities on the `new` ones.

    With `flags.last` the probabilities replace the log-probabilities in `values` instead.
    """
    gaussian, bilateral = lattices
    gaussian_old, bilateral_old = old
    gaussian_new, bilateral_new = new
    width = values.shape[1]
    carried = width if flags.single else width - LANES
    rows = values.reshape(values.size)
    energy = np.empty(width, np.float32)
    for pixel in range(len(values)):
        ahead = min(pixel + AHEAD, len(values) - 1)
        prefetch_sums(gaussian, 3, ahead, gaussian_old, carried)
        prefetch_sums(bilateral, 6, ahead, bilateral_old, carried)
        prefetch_sums(gaussian, 3, ahead, gaussian_new, carried)
        prefetch_sums(bilateral, 6, ahead, bilateral_new, carried)
        rest = fill8(np.float32(0.0) if flags.first else agreement[pixel])
        for start in range(0, carried, LANES):
            place = Place(pixel, start, carried)
            message = slice8(gaussian, 3, place, gaussian_old, fill8(np.float32(0.0)))
            message = slice8(bilateral, 6, place, bilateral_old, message)
            rest = subtract8(rest, message)
            store8(energy, start, add8(load8(rows, pixel * width + start), message))
        if not flags.single:
            store8(energy, carried, add8(load8(rows, pixel * width + carried), rest))
        if flags.stabilise:
            subtract_maximum(energy, 1 if flags.single else LANES)
        softmax(energy, flags.single)
        if flags.last:
            for start in range(0, width, LANES):
                store8(rows, pixel * width + start, load8(energy, start))
            continue
        for start in range(0, carried, LANES):
            probabilities = load8(energy, start)
            splat8(gaussian, 3, Place(pixel, start, carried), gaussian_new, probabilities)
            splat8(bilateral, 6, Place(pixel, start, carried), bilateral_new, probabilities)


@kernel
def mean_field(
    lattices: Lattices, values: Float, agreement: Float, iterations: int, single: bool, stabilise: bool
) -> None:
    """Runs mean field on one bundle: log-probabilities in, probabilities out, in place.

    A pixel's new probabilities go straight to the lattices of the next iteration and are never stored.

    Args:
        lattices: The kernel on positions (d = 2) and the one on positions and colours (d = 5), as
            `symmetric_kernel` builds them.
        values: (N, W) float32, see `pack`.
        agreement: (N,) float32, the message where all pixels agree.
        iterations: Updates after the first softmax, which hears no messages yet.
        single: Whether the rows hold a single run.
        stabilise: Whether energies may exceed `EXP_RANGE`.
    """
    gaussian, bilateral = lattices
    width = values.shape[1] if single else values.shape[1] - LANES
    gaussian_old = np.zeros(gaussian.num_vertices * width, np.float32)
    gaussian_new = np.zeros(gaussian.num_vertices * width, np.float32)
    bilateral_old = np.zeros(bilateral.num_vertices * width, np.float32)
    bilateral_new = np.zeros(bilateral.num_vertices * width, np.float32)
    for iteration in range(iterations + 1):
        flags = Flags(single, stabilise, iteration == 0, iteration == iterations)
        old, new = (gaussian_old, bilateral_old), (gaussian_new, bilateral_new)
        advance(lattices, old, new, values, agreement, flags)
        if flags.last:
            break
        gaussian_old, gaussian_new = gaussian_new, gaussian_old
        bilateral_old, bilateral_new = bilateral_new, bilateral_old
        blur(gaussian, gaussian_old, width)
        blur(bilateral, bilateral_old, width)
        gaussian_new[:] = 0.0
        bilateral_new[:] = 0.0
