"""Times filtering on the bilateral lattice in three ways, for the choice of `ome.crf.lattice`.

    python scripts/bench_lattice.py [--image RASTER] [--size 256] [--values 24]

The ways are sparse matrices in torch, indexing and `index_add_` in torch, and our numba kernel, all with one
thread and the lattice of `symmetric_kernel`. Mean field itself saves more: it never stores the filtered
values.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from measuring import compare, heading, image_argument, picture, seconds
from torch import Tensor

from ome.crf.inputs import CrfParameters, blockwise_order, kernel_features
from ome.crf.lattice import Lattice, splat_blur_slice, symmetric_kernel


def neighbours(lattice: Lattice) -> list[tuple[Tensor, Tensor]]:
    """Returns previous and next vertices of each direction, both (V,); V where there is none."""
    directions: list[tuple[Tensor, Tensor]] = []
    seen = np.ones(lattice.num_vertices, bool)
    ends = np.flatnonzero(lattice.chains < 0) + 1
    for codes in np.split(lattice.chains, ends[:-1]):
        chain = np.where(codes < 0, ~codes, codes).astype(np.int64)
        if seen[chain].any():  # a vertex is in one chain of a direction
            none = torch.full((lattice.num_vertices,), lattice.num_vertices)
            directions.append((none, none.clone()))
            seen[:] = False
        seen[chain] = True
        previous, following = directions[-1]
        previous[chain[1:]] = torch.from_numpy(chain[:-1])
        following[chain[:-1]] = torch.from_numpy(chain[1:])
    return directions


def by_gathering(lattice: Lattice, around: list[tuple[Tensor, Tensor]], values: Tensor) -> Tensor:
    """Filters with `index_add_` and indexing."""
    vertices, weights = torch.from_numpy(lattice.vertices).long(), torch.from_numpy(lattice.weights)
    sums = torch.zeros(lattice.num_vertices + 1, values.shape[1])
    sums.index_add_(0, vertices.ravel(), (weights[..., None] * values[:, None]).flatten(0, 1))
    for previous, following in around:
        sums[:-1] += 0.5 * (sums[previous] + sums[following])
    return (weights[..., None] * sums[vertices]).sum(1)


def matrices(lattice: Lattice, around: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Returns splat, blur of each direction and slice as sparse matrices, in order of application."""
    points, corners = lattice.vertices.shape
    vertices = torch.from_numpy(lattice.vertices).long().ravel()
    rows = torch.arange(points).repeat_interleave(corners)
    weights = torch.from_numpy(lattice.weights).ravel()
    count = lattice.num_vertices
    products = [torch.sparse_coo_tensor(torch.stack([vertices, rows]), weights, (count, points))]
    every = torch.arange(count)
    for previous, following in around:
        sides = [(every, every, 1.0), *((every[n < count], n[n < count], 0.5) for n in (previous, following))]
        indices = torch.cat([torch.stack([a, b]) for a, b, _ in sides], 1)
        factors = torch.cat([torch.full((len(a),), factor) for a, _, factor in sides])
        products.append(torch.sparse_coo_tensor(indices, factors, (count, count)))
    products.append(torch.sparse_coo_tensor(torch.stack([rows, vertices]), weights, (points, count)))
    return [matrix.coalesce().to_sparse_csr() for matrix in products]


def by_matrices(steps: list[Tensor], values: Tensor) -> Tensor:
    """Filters with sparse matrix products."""
    for step in steps:
        values = step @ values
    return values


def main() -> None:
    """Parses the command line and runs the comparison."""
    parser = argparse.ArgumentParser(description="Ways to filter on the permutohedral lattice.")
    image_argument(parser)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--values", type=int, default=24, help="values of a pixel, a multiple of 8")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parameters, order = CrfParameters(), blockwise_order(options.size, options.size)
    _, features = kernel_features(picture(options.image, options.size), parameters, order)
    lattice = symmetric_kernel(features, parameters.bilateral_weight)
    around = neighbours(lattice)
    steps = matrices(lattice, around)
    values = np.random.default_rng(0).random((options.size**2, options.values), np.float32)
    tensor = torch.from_numpy(values)
    heading(f"One filtering of {options.values} values, {options.size} x {options.size}: others, ours, ratio")
    ours = splat_blur_slice(lattice, values)
    our_time = seconds(lambda: splat_blur_slice(lattice, values)) * 1e3
    ways: dict[str, Callable[[], Tensor]] = {
        "torch, sparse matrices (CSR)": lambda: by_matrices(steps, tensor),
        "torch, gather and index_add_": lambda: by_gathering(lattice, around, tensor),
    }
    for name, others in ways.items():
        difference = np.abs(others().numpy() - ours).max()
        compare(name, seconds(others) * 1e3, our_time, "ms")
        print(f"    largest difference {difference:.1e}", flush=True)


if __name__ == "__main__":
    main()
