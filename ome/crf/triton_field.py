"""Mean field of many tiles by the kernels of `ome.crf.triton_kernels`.

Names of dimensions as there.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ome.crf.inputs import LEAST_PROBABILITY
from ome.crf.torch_lattice import TorchLattice
from ome.crf.triton_kernels import blur, splat, update_pixels

ELEMENTS = 1024  # of a block on a GPU
INTERPRETED = 1 << 16  # the interpreter takes as long for a large block


class JoinedLattice(NamedTuple):
    """The Gaussian and the bilateral lattice of the same pixels, as the kernels read them.

    Attributes:
        vertices: (N, 9) int32; those of the bilateral lattice come behind those of the Gaussian one.
        weights: (N, 9) float32.
        members: (N * 9,) int32, the pixels of each vertex, vertex after vertex.
        member_weights: (N * 9,) float32.
        starts: (V + 1,) int32 offsets in `members`.
        neighbours: Of each blur direction, (V, 3) int32, see `TorchLattice`; directions that only the
            bilateral lattice has hold its vertices alone.
    """

    vertices: Tensor
    weights: Tensor
    members: Tensor
    member_weights: Tensor
    starts: Tensor
    neighbours: Sequence[Tensor]


def join(gaussian: TorchLattice, bilateral: TorchLattice) -> JoinedLattice:
    """Lays the two lattices of the same pixels side by side."""
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
    lattice: JoinedLattice,
    agreement: Tensor,
    iterations: int,
    energy: Tensor,
    powers: Tensor,
    winners: bool,
) -> Tensor:
    """Runs mean field on one bundle of runs over all tiles, without waiting for the device.

    Args:
        lattice: Of all pixels.
        agreement: (N,) float32, the message where all pixels agree.
        iterations: Updates after the first softmax.
        energy: (N, K) float32 log-probabilities.
        powers: (R, K) float32 factors on them.
        winners: Whether the class of the largest probability is asked for.

    Returns:
        (N, R) uint8 classes, or (N, R, K) float32 probabilities.
    """
    (pixels, classes), runs = energy.shape, len(powers)
    count, width = len(lattice.starts) - 1, runs * (classes - 1)
    iterations = iterations if classes > 1 else 0  # a single class is certain everywhere
    values, old, new = (energy.new_empty(rows, width) for rows in (pixels, count, count))
    result = (
        energy.new_empty(pixels, runs, dtype=torch.uint8)
        if winners
        else energy.new_empty(pixels, runs, classes)
    )
    padded = {"RUNS": triton.next_power_of_2(runs), "CLASSES": triton.next_power_of_2(classes)}
    block = min(pixels_at_a_time(padded["RUNS"] * padded["CLASSES"], energy), triton.next_power_of_2(pixels))
    for iteration in range(iterations + 1):
        update_pixels[(triton.cdiv(pixels, block),)](
            new,
            old,
            lattice.vertices,
            lattice.weights,
            agreement,
            energy,
            powers,
            values,
            result,
            pixels,
            runs,
            classes,
            math.log(LEAST_PROBABILITY),
            FIRST=iteration == 0,
            LAST=iteration == iterations,
            WINNERS=winners,
            PIXELS=block,
            **padded,
        )
        if iteration < iterations:
            filter_rows(lattice, values, old, new)
    return result


def filter_rows(lattice: JoinedLattice, values: Tensor, old: Tensor, new: Tensor) -> None:
    """Splats and blurs the (N, W) rows of pixels.

    Args:
        lattice: Of all pixels.
        values: (N, W) float32.
        old: (V, W) float32, receives the sums of the bilateral lattice, whose directions are even in number.
        new: (V, W) float32, receives those of the Gaussian lattice, whose directions are odd in number.
    """
    count, width = old.shape
    columns = triton.next_power_of_2(width)
    block = min(pixels_at_a_time(columns, values), triton.next_power_of_2(count))
    sizes = {"VERTICES": block, "WIDTH": columns}
    rows = values, lattice.members, lattice.member_weights, lattice.starts
    splat[(triton.cdiv(count, block),)](*rows, old, count, width, **sizes)
    for number, neighbours in enumerate(lattice.neighbours):
        first = count - len(neighbours)
        source, target = (new, old) if number % 2 else (old, new)
        blur[(triton.cdiv(count - first, block),)](source, target, neighbours, first, count, width, **sizes)


def pixels_at_a_time(width: int, like: Tensor) -> int:
    """Returns how many rows of so many values, a power of 2, a block holds on the device of a tensor."""
    return max(1, (ELEMENTS if like.is_cuda else INTERPRETED) // width)
