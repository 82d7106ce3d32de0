"""The permutohedral lattice in torch, on any device; like `ome.crf.lattice`, but for a GPU.

Simplices and keys are computed with the same operations as in `ome.crf.simplices`, so that both lattices have
the same vertices. Splatting, blurring and slicing are one kind of operation: each row of the result is a
weighted sum of some rows of the input. `embedding_bag` computes it in one pass, whereas `index_add_` and
`segment_reduce` need the products in memory, a row for each corner of each point. On a GPU, `embedding_bag`
computes each sum in one thread in the order of its indices, so that results are reproducible; `index_add_`
adds in varying order, and the matrix products of cuSPARSE may do so.

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
        weights: (N, d + 1), their weights: barycentric coordinates, which `symmetric_kernel` scales.
        members: (N * (d + 1),), the points of each vertex, vertex after vertex.
        member_weights: (N * (d + 1),), `weights` in the order of `members`.
        starts: (V,), offset of each vertex in `members`.
        neighbours: (d + 1, V, 3), each vertex, its predecessor and its successor in each blur direction; the
            vertex itself where a neighbour does not exist.
        taps: (d + 1, V, 3), their weights in the blur: 1, 1/2 and 1/2; 0 where a neighbour does not exist.
    """

    vertices: Tensor
    weights: Tensor
    members: Tensor
    member_weights: Tensor
    starts: Tensor
    neighbours: Tensor
    taps: Tensor


def build_lattice(features: Tensor, tiles: int = 1) -> TorchLattice:
    """Builds one lattice for the points of several tiles, on their device.

    Args:
        features: (N, d) float32, in units of the Gaussian's standard deviation; N >= 1.
        tiles: Number of tiles. Their points follow one another, N / tiles each; tiles share no vertex.

    Returns:
        The lattice. Memory is linear in N, and so is time except for a sort of the N * (d + 1) keys.

    Raises:
        UserError: The features span more lattice cells than a 63-bit key can number.
    """
    lifted = lift(features)
    lower, upper = (bound[:-1].cpu().numpy() for bound in lifted.aminmax(dim=0))
    origin, strides, cells = number_cells(lower, upper, tiles)
    corner_keys, weights = locate(lifted, origin, strides)
    tile = torch.arange(tiles, device=features.device).repeat_interleave(len(features) // tiles)
    corner_keys += cells * tile[:, None]
    # A stable sort keeps the order of the points within each vertex.
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
    """Returns the features of `ome.crf.inputs.kernel_features`, (N, 2) and (N, 5), tile after tile."""
    tiles, _, height, width = images.shape
    rows, columns = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    positions = torch.stack([columns, rows], 2).reshape(1, -1, 2).float().expand(tiles, -1, -1).flatten(0, 1)
    colours = images.permute(0, 2, 3, 1).reshape(-1, 3).float()

    def units(values: Tensor, deviation: float) -> Tensor:
        # Divided by a tensor: for a number, a GPU would multiply by its reciprocal, with another rounding.
        return values / torch.full_like(values[:1], deviation)

    bilateral = [units(positions, parameters.bilateral_sxy), units(colours, parameters.bilateral_srgb)]
    return units(positions, parameters.gaussian_sxy), torch.cat(bilateral, 1)


def lift(features: Tensor) -> Tensor:
    """Maps features (N, d) to the hyperplane of sum 0; returns their coordinates (N, d + 1)."""
    total = torch.zeros_like(features[:, 0])
    lifted = []
    # Separate products and sums: the rounding of a fused multiply-add can put a point into another simplex.
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
        `corner` and `rank` of `ome.crf.simplices.enclose`, both (N, d + 1) int64, and the weights (N, d + 1)
        float32, that of the vertex of remainder k at index k.
    """
    size = lifted.shape[1]
    nearest = (lifted * (1 / size)).round().long()
    descending = (lifted - size * nearest).argsort(dim=1, descending=True, stable=True)
    rank = descending.argsort(dim=1) + nearest.sum(1, keepdim=True)
    # Rounding may leave the hyperplane: change the axes with the largest rounding errors.
    turns = rank.div(size, rounding_mode="floor")
    corner, rank = size * (nearest - turns), rank - size * turns
    offset = (lifted - corner) * (1 / size)
    ascending = offset.gather(1, rank.argsort(dim=1, descending=True))
    weights = ascending - torch.cat([ascending[:, -1:] - 1, ascending[:, :-1]], 1)
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
    """Returns `TorchLattice.neighbours` and `.taps` of the vertices with (V,) ascending `keys`."""
    vertices = torch.arange(len(keys), device=keys.device)
    zeros = torch.zeros(len(keys), device=keys.device)
    size = len(strides) + 1
    neighbours, taps = [], []
    for stride in (*strides, np.int64(0)):  # the last coordinate is not part of a key
        step = int(strides.sum() - size * stride)
        indices, weights = [vertices], [zeros + 1.0]
        for neighbour in (keys - step, keys + step):
            place = torch.searchsorted(keys, neighbour).clamp(max=len(keys) - 1)
            present = keys[place] == neighbour
            indices.append(torch.where(present, place, vertices))
            weights.append(torch.where(present, 0.5, zeros))
        neighbours.append(torch.stack(indices, 1))
        taps.append(torch.stack(weights, 1))
    return torch.stack(neighbours).int(), torch.stack(taps)


def splat_blur_slice(lattice: TorchLattice, values: Tensor) -> Tensor:
    """Applies the lattice, without the gain, to the (N, W) float32 values of its points, asynchronously."""
    sums = embedding_bag(
        lattice.members, values, lattice.starts, mode="sum", per_sample_weights=lattice.member_weights
    )
    for around, weights in zip(lattice.neighbours, lattice.taps, strict=True):
        sums = embedding_bag(around, sums, mode="sum", per_sample_weights=weights)
    return embedding_bag(lattice.vertices, sums, mode="sum", per_sample_weights=lattice.weights)


def symmetric_kernel(features: Tensor, weight: float, tiles: int = 1) -> TorchLattice:
    """Builds a lattice with scaled weights as in `ome.crf.lattice`, for tiles as in `build_lattice`."""
    lattice = build_lattice(features, tiles)
    height = gain(features.shape[1])
    sums = height * splat_blur_slice(lattice, torch.ones_like(features[:, :1]))[:, 0]
    factors = (height * weight) ** 0.5 / (sums + 1e-20).sqrt()
    return lattice._replace(
        weights=lattice.weights * factors[:, None],
        member_weights=lattice.member_weights * factors[lattice.members],
    )
