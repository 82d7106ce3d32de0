"""Mean-field inference of a fully connected CRF for a bundle of runs.

A bundle is a few runs of K classes whose values lie side by side: a pixel's row of K * lanes values has run r
of class k at k * lanes + r, so that one pass over the lattices serves every run and all loops over a row are
contiguous. Names of dimensions: N pixels, K classes, lanes: places for runs, some of them perhaps unused.
"""

import numpy as np
from numpy.typing import NDArray

from ome.pseudo.lattice import Lattice, blur, inner_kernel, kernel
from ome.pseudo.simplices import Float

EXP_RANGE = 80.0  # exp of this, summed over classes, is still a float32
PATCH = 256  # pixels transposed at a time, few enough for the cache

Lattices = tuple[Lattice, Lattice]  # Gaussian, bilateral
Sums = tuple[Float, Float]  # (V, K * lanes) vertex values of the Gaussian and of the bilateral lattice


@kernel
def pack(energy: Float, order: NDArray[np.int64], lanes: int) -> Float:
    """Lays (runs, K, N) energies out as (N, K, lanes), pixels in `order`; lanes without a run are 0."""
    runs, classes, num_pixels = energy.shape
    values = np.zeros((num_pixels, classes, lanes), np.float32)
    for start in range(0, num_pixels, PATCH):
        for label in range(classes):
            for run in range(runs):
                for place in range(start, min(start + PATCH, num_pixels)):
                    values[place, label, run] = energy[run, label, order[place]]
    return values


@kernel
def unpack(values: Float, order: NDArray[np.int64], stacks: Float) -> None:
    """Writes (N, K, lanes) values, pixels in `order`, to (runs, K, N) stacks."""
    runs, classes, num_pixels = stacks.shape
    for start in range(0, num_pixels, PATCH):
        for label in range(classes):
            for run in range(runs):
                for place in range(start, min(start + PATCH, num_pixels)):
                    stacks[run, label, order[place]] = values[place, label, run]


@kernel
def exponential(exponent: np.float32) -> np.float32:
    """Returns e^exponent for |exponent| <= 87 to a relative 5e-6, in operations that vectorise.

    2^n comes from writing n into the exponent bits, 2^f for |f| <= 1/2 from its Taylor polynomial.
    """
    binary = exponent * np.float32(1.4426950408889634)
    shifted = np.float32(binary + np.float32(12582912.0))  # 1.5 * 2^23: rounds n into the lowest bits
    fraction = binary - (shifted - np.float32(12582912.0))
    power = np.float32(1.540353e-4)
    power = power * fraction + np.float32(1.3333558e-3)
    power = power * fraction + np.float32(9.618129e-3)
    power = power * fraction + np.float32(5.5504109e-2)
    power = power * fraction + np.float32(2.4022651e-1)
    power = power * fraction + np.float32(6.9314718e-1)
    power = np.float32(power * fraction + np.float32(1.0))
    exponent_bits = np.int32(shifted.view(np.int32) << 23)
    return np.int32(power.view(np.int32) + exponent_bits).view(np.float32)


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
def softmax(energy: Float, lanes: int, total: Float) -> None:
    """Turns one pixel's (K * lanes,) energies into probabilities; `total` is (lanes,) scratch."""
    for place in range(len(energy)):
        energy[place] = exponential(energy[place])
    total[:] = 0.0
    for start in range(0, len(energy), lanes):
        members = energy[start : start + lanes]
        for run in range(lanes):
            total[run] += members[run]
    for run in range(lanes):
        total[run] = np.float32(1.0) / total[run]
    for start in range(0, len(energy), lanes):
        members = energy[start : start + lanes]
        for run in range(lanes):
            members[run] *= total[run]


@inner_kernel
def spread_three(lattice: Lattice, point: int, corner: int, values: Float, lattice_values: Float) -> None:
    """Adds the (W,) values of a point, weighted, to three of its vertices from `corner` on."""
    vertices, weights = lattice.vertices, lattice.weights
    first, first_weight = lattice_values[vertices[point, corner]], weights[point, corner]
    second, second_weight = lattice_values[vertices[point, corner + 1]], weights[point, corner + 1]
    third, third_weight = lattice_values[vertices[point, corner + 2]], weights[point, corner + 2]
    for place in range(len(values)):
        value = values[place]
        first[place] += first_weight * value
        second[place] += second_weight * value
        third[place] += third_weight * value


@inner_kernel
def collect_three(lattice: Lattice, point: int, corner: int, lattice_values: Float, values: Float) -> None:
    """Adds the weighted values of three of a point's vertices from `corner` on to its (W,) values."""
    vertices, weights = lattice.vertices, lattice.weights
    first, first_weight = lattice_values[vertices[point, corner]], weights[point, corner]
    second, second_weight = lattice_values[vertices[point, corner + 1]], weights[point, corner + 1]
    third, third_weight = lattice_values[vertices[point, corner + 2]], weights[point, corner + 2]
    for place in range(len(values)):
        values[place] += (
            first_weight * first[place] + second_weight * second[place] + third_weight * third[place]
        )


@kernel
def advance(lattices: Lattices, old: Sums, new: Sums, values: Float, stabilise: bool) -> None:
    """Makes one update: reads messages from the `old` sums and splats the probabilities on the `new` ones."""
    gaussian, bilateral = lattices
    gaussian_old, bilateral_old = old
    gaussian_new, bilateral_new = new
    num_pixels, classes, lanes = values.shape
    rows = values.reshape(num_pixels, classes * lanes)
    energy, total = np.empty(classes * lanes, np.float32), np.empty(lanes, np.float32)
    for pixel in range(num_pixels):
        row = rows[pixel]
        for place in range(len(row)):
            energy[place] = row[place]
        collect_three(gaussian, pixel, 0, gaussian_old, energy)
        collect_three(bilateral, pixel, 0, bilateral_old, energy)
        collect_three(bilateral, pixel, 3, bilateral_old, energy)
        if stabilise:
            subtract_maximum(energy, lanes)
        softmax(energy, lanes, total)
        spread_three(gaussian, pixel, 0, energy, gaussian_new)
        spread_three(bilateral, pixel, 0, energy, bilateral_new)
        spread_three(bilateral, pixel, 3, energy, bilateral_new)


@kernel
def finish(lattices: Lattices, old: Sums, values: Float, stabilise: bool) -> None:
    """Makes the last update: replaces the log-probabilities by the probabilities."""
    gaussian, bilateral = lattices
    gaussian_old, bilateral_old = old
    num_pixels, classes, lanes = values.shape
    rows = values.reshape(num_pixels, classes * lanes)
    total = np.empty(lanes, np.float32)
    for pixel in range(num_pixels):
        row = rows[pixel]
        collect_three(gaussian, pixel, 0, gaussian_old, row)
        collect_three(bilateral, pixel, 0, bilateral_old, row)
        collect_three(bilateral, pixel, 3, bilateral_old, row)
        if stabilise:
            subtract_maximum(row, lanes)
        softmax(row, lanes, total)


@kernel
def mean_field(lattices: Lattices, values: Float, iterations: int, stabilise: bool) -> None:
    """Runs mean field on one bundle: log-probabilities in, probabilities out, in place.

    A pixel's new probabilities go straight to the lattices of the next iteration and are never stored.

    Args:
        lattices: The kernel on positions (d = 2) and the one on positions and colours (d = 5), as
            `symmetric_kernel` builds them.
        values: (N, K, lanes) float32.
        iterations: Updates after the first softmax, which hears no messages yet.
        stabilise: Whether energies may exceed `EXP_RANGE`.
    """
    gaussian, bilateral = lattices
    width = values.shape[1] * values.shape[2]
    gaussian_old = np.zeros((gaussian.num_vertices, width), np.float32)
    gaussian_new = np.zeros((gaussian.num_vertices, width), np.float32)
    bilateral_old = np.zeros((bilateral.num_vertices, width), np.float32)
    bilateral_new = np.zeros((bilateral.num_vertices, width), np.float32)
    for _ in range(iterations):
        advance(lattices, (gaussian_old, bilateral_old), (gaussian_new, bilateral_new), values, stabilise)
        gaussian_old, gaussian_new = gaussian_new, gaussian_old
        bilateral_old, bilateral_new = bilateral_new, bilateral_old
        blur(gaussian, gaussian_old)
        blur(bilateral, bilateral_old)
        gaussian_new[:] = 0.0
        bilateral_new[:] = 0.0
    finish(lattices, (gaussian_old, bilateral_old), values, stabilise)
