"""Mean-field inference of a fully connected CRF for a bundle of runs.

A bundle has up to eight runs. Its values are rows of W float32, W a multiple of 8, one row per pixel. With
several runs, class k of run r is at 8 k + r, so that each vector of eight is one class of all runs; in a
single run, class k is at k. One pass over the lattice filters all values of a row.

Since probabilities sum to 1, the messages of all classes sum to the agreement of a pixel: the message of a
class with probability 1 at all pixels, which is computed once. With several runs, the last class is therefore
not filtered: its message is the agreement less the messages of the others.

Names of dimensions: N pixels, K classes, V lattice vertices, U values of a vertex.
"""

from typing import NamedTuple

import numba
import numpy as np

from ome.crf.lattice import Lattice, blur, kernel
from ome.crf.rows import gather, prefetch_rows, scatter
from ome.crf.simplices import Float
from ome.crf.vectors import LANES, add8, exp8, fill8, load8, multiply8, reciprocal8, store8, subtract8, sum8

EXP_RANGE = 80.0  # the sum of its exp over classes is still a finite float32
AHEAD = 4  # pixels by which updates prefetch


class Flags(NamedTuple):
    """Variants of an update.

    Attributes:
        single: The bundle is a single run.
        stabilise: Energies may exceed `EXP_RANGE`.
        first: There are no messages yet.
        last: The probabilities are the result.
    """

    single: bool
    stabilise: bool
    first: bool
    last: bool


@kernel
def subtract_maximum(energy: Float, lanes: int) -> None:
    """Shifts the (K * lanes,) energies of every run to a maximum of 0 and a minimum of -`EXP_RANGE`."""
    for run in range(lanes):
        largest = energy[run]
        for place in range(run, len(energy), lanes):
            largest = max(largest, energy[place])
        for place in range(run, len(energy), lanes):
            energy[place] = max(energy[place] - largest, np.float32(-EXP_RANGE))


@numba.njit(inline="always")
def advance_rows(
    lattice: Lattice,
    old: Float,
    new: Float,
    values: Float,
    agreement: Float,
    flags: Flags,
    single: bool,
    width: int,
    carried: int,
) -> None:
    """Implements `advance` for rows of `width` values, of which the lattice filters the first `carried`."""
    # Outside the loop, in which numba would count references at every pixel.
    vertices, weights = lattice.vertices, lattice.weights
    rows = values.reshape(values.size)
    messages, energy = np.zeros(width, np.float32), np.empty(width, np.float32)
    for pixel in range(len(values)):
        if carried > LANES:  # prefetching narrow rows takes longer than loading them
            ahead = min(pixel + AHEAD, len(values) - 1)
            prefetch_rows(vertices, weights, ahead, old, carried)
            prefetch_rows(vertices, weights, ahead, new, carried)
        gather(vertices, weights, pixel, old, carried, messages)
        rest = fill8(np.float32(0.0) if flags.first else agreement[pixel])
        for start in range(0, carried, LANES):
            message = load8(messages, start)
            rest = subtract8(rest, message)
            store8(energy, start, add8(load8(rows, pixel * width + start), message))
        if not single:
            store8(energy, carried, add8(load8(rows, pixel * width + carried), rest))
        if flags.stabilise:
            subtract_maximum(energy, 1 if single else LANES)
        total = fill8(np.float32(0.0))
        for start in range(0, width, LANES):
            powers = exp8(load8(energy, start))
            store8(energy, start, powers)
            total = add8(total, powers)
        # The classes of a single run are the elements of a row, those of several runs its vectors.
        factors = reciprocal8(fill8(sum8(total)) if single else total)
        for start in range(0, width, LANES):
            store8(energy, start, multiply8(load8(energy, start), factors))
        if flags.last:
            for start in range(0, width, LANES):
                store8(rows, pixel * width + start, load8(energy, start))
        else:
            scatter(vertices, weights, pixel, new, carried, energy)


@kernel
def advance(lattice: Lattice, old: Float, new: Float, values: Float, agreement: Float, flags: Flags) -> None:
    """Makes one update: reads messages from the `old` sums and splats probabilities to the `new` sums.

    With `flags.last`, the probabilities replace the log-probabilities in `values` instead.
    """
    width = values.shape[1]
    # With constant widths, loops over vectors are unrolled, which is 1.5 to 2 times as fast: for a single run
    # of up to eight classes, and for several runs of two to five classes.
    if flags.single and width == LANES:
        advance_rows(lattice, old, new, values, agreement, flags, True, LANES, LANES)
    elif flags.single:
        advance_rows(lattice, old, new, values, agreement, flags, True, width, width)
    elif width == 2 * LANES:
        advance_rows(lattice, old, new, values, agreement, flags, False, 2 * LANES, LANES)
    elif width == 3 * LANES:
        advance_rows(lattice, old, new, values, agreement, flags, False, 3 * LANES, 2 * LANES)
    elif width == 4 * LANES:
        advance_rows(lattice, old, new, values, agreement, flags, False, 4 * LANES, 3 * LANES)
    elif width == 5 * LANES:
        advance_rows(lattice, old, new, values, agreement, flags, False, 5 * LANES, 4 * LANES)
    else:
        advance_rows(lattice, old, new, values, agreement, flags, False, width, width - LANES)


@kernel
def mean_field(
    lattice: Lattice, values: Float, agreement: Float, workspace: Float, iterations: int, flags: Flags
) -> None:
    """Runs mean field on one bundle: log-probabilities in, probabilities out, in place.

    The new probabilities of a pixel are splatted at once and not stored.

    Args:
        lattice: The lattices of positions (d = 2) and of positions and colours (d = 5), built by
            `symmetric_kernel` and joined by `join`, with flat vertices and weights.
        values: (N, W) float32, see `ome.crf.packing`.
        agreement: (N,) float32, see above.
        workspace: (2, at least V * U) float32.
        iterations: Updates after the first softmax, which has no messages.
        flags: `single` and `stabilise`; `first` and `last` are ignored.
    """
    width = values.shape[1] if flags.single else values.shape[1] - LANES
    size = lattice.num_vertices * width
    old, new = workspace[0], workspace[1]
    old[:size] = 0.0
    for iteration in range(iterations + 1):
        new[:size] = 0.0
        now = Flags(flags.single, flags.stabilise, iteration == 0, iteration == iterations)
        advance(lattice, old, new, values, agreement, now)
        old, new = new, old
        if not now.last:
            blur(lattice, old, width)
