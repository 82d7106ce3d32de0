"""Mean-field inference of a fully connected CRF for a bundle of runs.

A bundle is a few runs of K classes whose values lie side by side: a pixel's row of K * lanes values has run r
of class k at k * lanes + r, so that one pass over the lattices serves every run and all loops over a row are
contiguous. Names of dimensions: N pixels, K classes, lanes: places for runs, some of them perhaps unused.
"""

import numpy as np
from numpy.typing import NDArray

from ome.pseudo.lattice import Lattice, blur, collect, kernel, spread
from ome.pseudo.simplices import Float

EXP_RANGE = 80.0  # exp of this, summed over classes, is still a float32


@kernel
def pack(energy: Float, order: NDArray[np.int64], lanes: int) -> Float:
    """Lays (runs, K, N) energies out as (N, K, lanes), pixels in `order`; runs short of `lanes` are 0."""
    runs, classes, num_pixels = energy.shape
    values = np.zeros((num_pixels, classes, lanes), np.float32)
    for place in range(num_pixels):
        pixel = order[place]
        for label in range(classes):
            for run in range(runs):
                values[place, label, run] = energy[run, label, pixel]
    return values


@kernel
def unpack(values: Float, order: NDArray[np.int64], stacks: Float) -> None:
    """Writes (N, K, lanes) values, pixels in `order`, to (runs, K, N) stacks."""
    runs, classes, num_pixels = stacks.shape
    for place in range(num_pixels):
        pixel = order[place]
        for label in range(classes):
            for run in range(runs):
                stacks[run, label, pixel] = values[place, label, run]


@kernel
def exponential(exponent: np.float32) -> np.float32:
    """Returns e^exponent for |exponent| <= 87 to a relative 1e-6, in operations that vectorise.

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


@kernel
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


@kernel
def mean_field(
    gaussian: Lattice, bilateral: Lattice, values: Float, iterations: int, stabilise: bool
) -> None:
    """Runs mean field on one bundle: log-probabilities in, probabilities out, in place.

    A pixel's new probabilities go straight to the lattices of the next iteration and are never stored.

    Args:
        gaussian: The kernel on positions, as `symmetric_kernel` builds it.
        bilateral: The kernel on positions and colours.
        values: (N, K, lanes) float32.
        iterations: Updates after the first softmax.
        stabilise: Whether energies may exceed `EXP_RANGE`.
    """
    num_pixels, _, lanes = values.shape
    rows = values.reshape(num_pixels, -1)
    width = rows.shape[1]
    gaussian_old = np.zeros((gaussian.num_vertices, width), np.float32)
    gaussian_new = np.zeros((gaussian.num_vertices, width), np.float32)
    bilateral_old = np.zeros((bilateral.num_vertices, width), np.float32)
    bilateral_new = np.zeros((bilateral.num_vertices, width), np.float32)
    energy, total = np.empty(width, np.float32), np.empty(lanes, np.float32)
    for iteration in range(iterations + 1):
        if iteration > 0:
            gaussian_old, gaussian_new = gaussian_new, gaussian_old
            bilateral_old, bilateral_new = bilateral_new, bilateral_old
            blur(gaussian, gaussian_old)
            blur(bilateral, bilateral_old)
            gaussian_new[:] = 0.0
            bilateral_new[:] = 0.0
        for pixel in range(num_pixels):
            energy[:] = rows[pixel]
            if iteration > 0:
                collect(gaussian.vertices[pixel], gaussian.weights[pixel], gaussian_old, energy)
                collect(bilateral.vertices[pixel], bilateral.weights[pixel], bilateral_old, energy)
            if stabilise:
                subtract_maximum(energy, lanes)
            softmax(energy, lanes, total)
            if iteration == iterations:
                rows[pixel] = energy
            else:
                spread(gaussian.vertices[pixel], gaussian.weights[pixel], energy, gaussian_new)
                spread(bilateral.vertices[pixel], bilateral.weights[pixel], energy, bilateral_new)
