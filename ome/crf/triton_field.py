"""Mean field of many tiles with the kernels of `ome.crf.triton_kernels`; names of dimensions are theirs."""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
import triton
from torch import Tensor

from ome.crf.inputs import LEAST_PROBABILITY
from ome.crf.torch_lattice import TorchLattice
from ome.crf.triton_kernels import add_parts, blur, splat, update_pixels

ELEMENTS = 1024  # elements of a block on a GPU
INTERPRETED = 1 << 16  # elements of a block in the interpreter, where large blocks take no longer

PART: Final = 128
"""Most pixels of a vertex that one program adds: in a tile of one colour a vertex has 10,000."""


class JoinedLattice(NamedTuple):
    """The Gaussian and the bilateral lattice of the same pixels; attributes are those of `TorchLattice`.

    Attributes:
        vertices: (N, 9) int32; numbers of the bilateral lattice begin after those of the Gaussian one.
        weights: (N, 9) float32.
        members: (N * 9,) int32.
        member_weights: (N * 9,) float32.
        parts: (P, 2) int32, first and end in `members` of at most `PART` members of a vertex: row v is the
            first part of vertex v, the rows from V on are the other parts, vertex after vertex.
        divided: (D, 3) int32, each vertex of several parts, the first of its other rows in `parts` and their
            end.
        neighbours: For each blur direction (V, 3) int32, or only the vertices of the bilateral lattice if the
            Gaussian one does not have this direction.
    """

    vertices: Tensor
    weights: Tensor
    members: Tensor
    member_weights: Tensor
    parts: Tensor
    divided: Tensor
    neighbours: Sequence[Tensor]


def join(gaussian: TorchLattice, bilateral: TorchLattice) -> JoinedLattice:
    """Joins the two lattices of the same pixels."""
    first, both = len(gaussian.starts), (gaussian, bilateral)
    end = gaussian.starts.new_tensor([len(gaussian.members) + len(bilateral.members)])
    starts = torch.cat([gaussian.starts, bilateral.starts + len(gaussian.members), end])
    parts, divided = divide(starts)
    neighbours = list((bilateral.neighbours + first).unbind())
    for number, around in enumerate(gaussian.neighbours):
        neighbours[number] = torch.cat([around, neighbours[number]])
    return JoinedLattice(
        vertices=torch.cat([gaussian.vertices, bilateral.vertices + first], 1),
        weights=torch.cat([lattice.weights for lattice in both], 1),
        members=torch.cat([lattice.members for lattice in both]),
        member_weights=torch.cat([lattice.member_weights for lattice in both]),
        parts=parts,
        divided=divided,
        neighbours=neighbours,
    )


def divide(starts: Tensor) -> tuple[Tensor, Tensor]:
    """Divides the members of vertices, at least one each, into parts.

    Args:
        starts: (V + 1,) int32 offsets of the members of each vertex, and their end.

    Returns:
        `parts` and `divided` of `JoinedLattice`.
    """
    first, end = starts[:-1], starts[1:]
    more = (end - first - 1) // PART  # parts after the first
    divided = more.nonzero()[:, 0]
    more = more[divided]
    stops = more.cumsum(0)
    vertex = divided.repeat_interleave(more)
    number = torch.arange(len(vertex), device=starts.device) - (stops - more).repeat_interleave(more) + 1
    begins = torch.cat([first, first[vertex] + PART * number])
    ends = torch.minimum(begins + PART, torch.cat([end, end[vertex]]))
    rows = torch.stack([divided, len(first) + stops - more, len(first) + stops], 1)
    return torch.stack([begins, ends], 1).int(), rows.int()


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
    width = runs * (classes - 1)
    iterations = iterations if classes > 1 else 0  # a single class has probability 1 everywhere
    count = len(lattice.neighbours[0])
    values, old, new = (energy.new_empty(rows, width) for rows in (pixels, len(lattice.parts), count))
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

    The sums of the bilateral lattice, which has an even number of directions, are written to `old`, (P, W)
    float32, and those of the Gaussian lattice, which has an odd number, to `new`, (V, W) float32. The rows of
    `old` from V on are for the parts of vertices after their first ones.
    """
    count, width = new.shape
    columns = triton.next_power_of_2(width)
    block = min(rows_per_block(columns, values), triton.next_power_of_2(count))
    sizes = {"ROWS": block, "WIDTH": columns}
    members, parts, divided = (lattice.members, lattice.member_weights), lattice.parts, lattice.divided
    launch(splat, triton.cdiv(len(parts), block), values, *members, parts, old, len(parts), width, **sizes)
    if len(divided):
        launch(add_parts, triton.cdiv(len(divided), block), old, divided, len(divided), width, **sizes)
    for number, neighbours in enumerate(lattice.neighbours):
        first = count - len(neighbours)
        source, target = (new, old) if number % 2 else (old, new)
        programs = triton.cdiv(count - first, block)
        launch(blur, programs, source, target, neighbours, first, count, width, **sizes)


def launch(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:  # noqa: ANN401
    """Launches a kernel on the device of its tensors, the first of which is its first argument.

    Triton launches on the current device of the thread, which is another one in every thread that has not set
    it, for instance those of a pool.
    """
    # It has no effect for tensors of the CPU.
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        kernel[(programs,)](*arguments, **constants)


def rows_per_block(width: int, values: Tensor) -> int:
    """Returns the number of rows of `width` values, a power of 2, in a block on the device of `values`."""
    return max(1, (ELEMENTS if values.is_cuda else INTERPRETED) // width)
