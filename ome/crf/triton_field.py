"""Mean field of many tiles with the kernels of `ome.crf.triton_kernels`; names of dimensions are theirs."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ome.crf.inputs import LEAST_PROBABILITY
from ome.crf.torch_lattice import TorchLattice
from ome.crf.triton_kernels import blur, splat, update_pixels

ELEMENTS = 1024  # elements of a block on a GPU
INTERPRETED = 1 << 16  # elements of a block in the interpreter, where large blocks take no longer


class JoinedLattice(NamedTuple):
    """The Gaussian and the bilateral lattice of the same pixels; attributes are those of `TorchLattice`.

    Attributes:
        vertices: (N, 9) int32; numbers of the bilateral lattice begin after those of the Gaussian one.
        weights: (N, 9) float32.
        members: (N * 9,) int32.
        member_weights: (N * 9,) float32.
        starts: (V + 1,) int32.
        neighbours: For each blur direction (V, 3) int32, or only the vertices of the bilateral lattice if the
            Gaussian one does not have this direction.
    """

    vertices: Tensor
    weights: Tensor
    members: Tensor
    member_weights: Tensor
    starts: Tensor
    neighbours: Sequence[Tensor]


def join(gaussian: TorchLattice, bilateral: TorchLattice) -> JoinedLattice:
    """Joins the two lattices of the same pixels."""
    first, both = len(gaussian.starts), (gaussian, bilateral)
    end = gaussian.starts.new_tensor([len(gaussian.members) + len(bilateral.members)])
    neighbours = list((bilateral.neighbours + first).unbind())
    for number, around in enumerate(gaussian.neighbours):
        neighbours[number] = torch.cat([around, neighbours[number]])
    return JoinedLattice(
        vertices=torch.cat([gaussian.vertices, bilateral.vertices + first], 1),
        weights=torch.cat([lattice.weights for lattice in both], 1),
        members=torch.cat([lattice.members for lattice in both]),
        member_weights=torch.cat([lattice.member_weights for lattice in both]),
        starts=torch.cat([gaussian.starts, bilateral.starts + len(gaussian.members), end]),
        neighbours=neighbours,
    )


def mean_field(
    lattice: JoinedLattice, agreement: Tensor, iterations: int, energy: Tensor, powers: Tensor, winners: bool
) -> Tensor:
    """Runs mean field on one bundle of runs for all tiles, asynchronously.

    Args:
        lattice: The lattices of all pixels.
        agreement: (N,) float32, the message of a class with probability 1 at all pixels.
        iterations: Updates after the first softmax.
        energy: (N, K) float32 log-probabilities.
        powers: (R, K) float32 factors on them.
        winners: Whether to return the class of the largest probability.

    Returns:
        (N, R) uint8 classes, or (N, R, K) float32 probabilities.
    """
    (pixels, classes), runs = energy.shape, len(powers)
    count, width = len(lattice.starts) - 1, runs * (classes - 1)
    iterations = iterations if classes > 1 else 0  # a single class has probability 1 everywhere
    values, old, new = (energy.new_empty(rows, width) for rows in (pixels, count, count))
    result = (
        energy.new_empty(pixels, runs, dtype=torch.uint8)
        if winners
        else energy.new_empty(pixels, runs, classes)
    )
    padded = {"RUNS": triton.next_power_of_2(runs), "CLASSES": triton.next_power_of_2(classes)}
    block = min(rows_per_block(padded["RUNS"] * padded["CLASSES"], energy), triton.next_power_of_2(pixels))
    tensors = new, old, lattice.vertices, lattice.weights, agreement, energy, powers, values, result
    numbers = pixels, runs, classes, math.log(LEAST_PROBABILITY)
    constants = {"WINNERS": winners, "PIXELS": block, **padded}
    for iteration in range(iterations + 1):
        flags = {"FIRST": iteration == 0, "LAST": iteration == iterations}
        launch(update_pixels, triton.cdiv(pixels, block), *tensors, *numbers, **flags, **constants)
        if iteration < iterations:
            filter_rows(lattice, values, old, new)
    return result


def filter_rows(lattice: JoinedLattice, values: Tensor, old: Tensor, new: Tensor) -> None:
    """Splats and blurs the rows of pixels, `values` (N, W) float32.

    The sums of the bilateral lattice, which has an even number of directions, are written to `old`, and those
    of the Gaussian lattice, which has an odd number, to `new`, both (V, W) float32.
    """
    count, width = old.shape
    columns = triton.next_power_of_2(width)
    block = min(rows_per_block(columns, values), triton.next_power_of_2(count))
    sizes = {"VERTICES": block, "WIDTH": columns}
    rows = values, lattice.members, lattice.member_weights, lattice.starts
    launch(splat, triton.cdiv(count, block), *rows, old, count, width, **sizes)
    for number, neighbours in enumerate(lattice.neighbours):
        first = count - len(neighbours)
        source, target = (new, old) if number % 2 else (old, new)
        programs = triton.cdiv(count - first, block)
        launch(blur, programs, source, target, neighbours, first, count, width, **sizes)


def launch(kernel: Any, programs: int, first: Tensor, *arguments: Tensor | float, **constants: int) -> None:  # noqa: ANN401
    """Launches a kernel on the device of its tensors.

    Triton launches on the current device of the thread, which is another one in every thread that has not set
    it, for instance those of a pool.
    """
    with torch.cuda.device_of(first):  # has no effect for tensors of the CPU
        kernel[(programs,)](first, *arguments, **constants)


def rows_per_block(width: int, values: Tensor) -> int:
    """Returns the number of rows of `width` values, a power of 2, in a block on the device of `values`."""
    return max(1, (ELEMENTS if values.is_cuda else INTERPRETED) // width)
