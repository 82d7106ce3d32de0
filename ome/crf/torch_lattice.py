"""The permutohedral lattice in torch, on any device: `ome.crf.lattice` for a GPU.

Simplices and keys are those of `ome.crf.simplices`, operation for operation, so that both lattices have
the same vertices. Splatting, blurring and slicing are three times the same: each row of the result is a
weighted sum of some rows of the input, which `embedding_bag` computes in one pass; `index_add_` and
`segment_reduce` want the products written first, a row for each corner of each point. On a GPU
`embedding_bag` leaves each sum to one thread, in the order of its indices, so that the same input gives the
same bytes; `index_add_` adds in varying order there, and so may the matrix products of cuSPARSE.

Names of dimensions: N points, d feature dimensions, V lattice vertices, W values carried by a point.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ome.crf.inputs import CrfParameters
from ome.crf.lattice import gain, number_cells
from ome.crf.simplices import Key, lift_scale


class TorchLattice(NamedTuple):
    """The lattice of one set of points, without any values. Indices are int32, weights float32.

    Attributes:
        vertices: (N, d + 1), the vertices of each point, numbered in the order of their keys.
        weights: (N, d + 1) of a point's vertices: barycentric coordinates, when just built.
        members: (N * (d + 1),), the points of each vertex, vertex after vertex.
        member_weights: (N * (d + 1),), `weights` in that order.
        starts: (V,) offsets of the vertices in `members`.
        neighbours: (d + 1, V, 3), each vertex, the one before and the one behind it in each blur direction;
            the vertex itself where there is none.
        taps: (d + 1, V, 3), their weights in the blur: 1, 1/2 and 1/2; 0 where there is none.
    """

    vertices: Tensor
    weights: Tensor
    members: Tensor
    member_weights: Tensor
    starts: Tensor
    neighbours: Tensor
    taps: Tensor


def build_lattice(features: Tensor, tiles: int = 1) -> TorchLattice:
    """Builds the lattices of sets of points on their device, side by side.

    Args:
        features: (N, d) float32, in units of the Gaussian's standard deviation; N >= 1.
        tiles: Sets of as many points each, one after another, that share no vertex.

    Returns:
        The lattice. Memory is linear in N, time but for a sort of the N * (d + 1) keys.

    Raises:
        ValueError: If the features span more lattice cells than a 63-bit key can number.
    """
    lifted = lift(features)
    lower, upper = (bound[:-1].cpu().numpy() for bound in lifted.aminmax(dim=0))
    origin, strides, cells = number_cells(lower, upper, tiles)
    corner_keys, weights = locate(lifted, origin, strides)
    tile = torch.arange(tiles, device=features.device).repeat_interleave(len(features) // tiles)
    corner_keys += cells * tile[:, None]
    # The sort is stable: a vertex adds its points up in their own order.
    ordered, order = corner_keys.flatten().sort(stable=True)
    keys, numbers, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    vertices = torch.empty_like(numbers)
    vertices[order] = numbers
    neighbours, taps = find_neighbours(keys, strides)
    return TorchLattice(
        vertices=vertices.view_as(corner_keys).int(),
        weights=weights,
        members=(order // weights.shape[1]).int(),
        member_weights=weights.flatten()[order],
        starts=(counts.cumsum(0) - counts).int(),
        neighbours=neighbours,
        taps=taps,
    )


def pixel_features(images: Tensor, parameters: CrfParameters) -> tuple[Tensor, Tensor]:
    """Returns what `ome.crf.inputs.kernel_features` does, (N, 2) and (N, 5), of tile after tile."""
    tiles, _, height, width = images.shape
    rows, columns = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    positions = torch.stack([columns, rows], 2).reshape(1, -1, 2).float().expand(tiles, -1, -1).flatten(0, 1)
    colours = images.permute(0, 2, 3, 1).reshape(-1, 3).float()

    def units(values: Tensor, deviation: float) -> Tensor:
        # By a tensor: a GPU multiplies by the reciprocal of a number, which rounds differently.
        return values / torch.full_like(values[:1], deviation)

    bilateral = [units(positions, parameters.bilateral_sxy), units(colours, parameters.bilateral_srgb)]
    return units(positions, parameters.gaussian_sxy), torch.cat(bilateral, 1)


def lift(features: Tensor) -> Tensor:
    """Returns the (N, d + 1) coordinates of (N, d) points on the hyperplane of sum 0."""
    total = torch.zeros_like(features[:, 0])
    lifted = []
    # Products and sums stay apart: a fused multiply-add can put a point into another simplex.
    for axis, factor in reversed(list(enumerate(lift_scale(features.shape[1]).tolist(), 1))):
        coordinate = features[:, axis - 1] * factor
        lifted.append(total - axis * coordinate)
        total = total + coordinate
    return torch.stack([total, *reversed(lifted)], 1)


def enclose(lifted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the simplex around each lifted point.

    Args:
        lifted: (N, d + 1) float32.

    Returns:
        (N, d + 1) int64, the simplex's vertex of remainder 0, all multiples of d + 1; (N, d + 1) int64, the
        place of each axis when offsets from that vertex are sorted downwards; (N, d + 1) float32, the weight
        of the vertex of remainder k at place k.
    """
    size = lifted.shape[1]
    nearest = (lifted * (1 / size)).round().long()
    downwards = (lifted - size * nearest).argsort(dim=1, descending=True, stable=True)
    rank = downwards.argsort(dim=1) + nearest.sum(1, keepdim=True)
    # Rounding may leave the hyperplane: step back where it erred most.
    turns = rank.div(size, rounding_mode="floor")
    corner, rank = size * (nearest - turns), rank - size * turns
    offset = (lifted - corner) * (1 / size)
    upwards = offset.gather(1, rank.argsort(dim=1, descending=True))
    weights = upwards - torch.cat([upwards[:, -1:] - 1, upwards[:, :-1]], 1)
    return corner, rank, weights


def locate(lifted: Tensor, origin: Key, strides: Key) -> tuple[Tensor, Tensor]:
    """Returns the (N, d + 1) int64 keys of the vertices of every point's simplex, and their weights."""
    corner, rank, weights = enclose(lifted)
    size = lifted.shape[1]
    stride = torch.from_numpy(strides).to(lifted.device)
    base = ((corner[:, :-1] - torch.from_numpy(origin).to(lifted.device)) * stride).sum(1, keepdim=True)
    keys = []
    for remainder in range(size):
        step = torch.where(rank[:, :-1] < size - remainder, remainder, remainder - size)
        keys.append(base + (step * stride).sum(1, keepdim=True))
    return torch.cat(keys, 1), weights


def find_neighbours(keys: Tensor, strides: Key) -> tuple[Tensor, Tensor]:
    """Returns `neighbours` and `taps` of the vertices with these (V,) ascending keys."""
    itself = torch.arange(len(keys), device=keys.device)
    nobody = torch.zeros(len(keys), device=keys.device)
    size = len(strides) + 1
    neighbours, taps = [], []
    for stride in (*strides, np.int64(0)):  # the last coordinate is not part of a key
        step = int(strides.sum() - size * stride)
        indices, weights = [itself], [nobody + 1.0]
        for neighbour in (keys - step, keys + step):
            place = torch.searchsorted(keys, neighbour).clamp(max=len(keys) - 1)
            present = keys[place] == neighbour
            indices.append(torch.where(present, place, itself))
            weights.append(torch.where(present, 0.5, nobody))
        neighbours.append(torch.stack(indices, 1))
        taps.append(torch.stack(weights, 1))
    return torch.stack(neighbours).int(), torch.stack(taps)


def splat_blur_slice(lattice: TorchLattice, values: Tensor) -> Tensor:
    """Applies the lattice, without the gain, to the (N, W) float32 values of its points, without waiting."""
    sums = embedding_bag(
        lattice.members, values, lattice.starts, mode="sum", per_sample_weights=lattice.member_weights
    )
    for around, weights in zip(lattice.neighbours, lattice.taps, strict=True):
        sums = embedding_bag(around, sums, mode="sum", per_sample_weights=weights)
    return embedding_bag(lattice.vertices, sums, mode="sum", per_sample_weights=lattice.weights)


def symmetric_kernel(features: Tensor, weight: float, tiles: int = 1) -> TorchLattice:
    """Builds a lattice that applies a symmetrically normalised kernel, see `ome.crf.lattice`.

    Args:
        features: (N, d) float32, in units of the Gaussian's standard deviation.
        weight: At least 0.
        tiles: As for `build_lattice`.

    Returns:
        The lattice, its weights scaled.
    """
    lattice = build_lattice(features, tiles)
    height = gain(features.shape[1])
    sums = height * splat_blur_slice(lattice, torch.ones_like(features[:, :1]))[:, 0]
    factors = (height * weight) ** 0.5 / (sums + 1e-20).sqrt()
    return lattice._replace(
        weights=lattice.weights * factors[:, None],
        member_weights=lattice.member_weights * factors[lattice.members],
    )
