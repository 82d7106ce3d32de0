"""The permutohedral lattice: Gaussian filtering of scattered points in time linear in their number.

A point is lifted to the hyperplane of d + 1 coordinates that sum to 0. Its values are distributed to the d +
1 vertices of the simplex around it (splat), blurred along the d + 1 lattice directions (blur), and read back
with the same weights (slice). Source: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the
Permutohedral Lattice", Eurographics 2010.

Names of dimensions: N points, d feature dimensions, V lattice vertices, W values of a point. Inside kernels
the values of vertices are flat, (V * W,), and W is a multiple of 8.
"""

from typing import NamedTuple

import numpy as np

from ome.compiled import compiled
from ome.crf.chains import WIDEST, blur_chains
from ome.crf.simplices import Float, Index, Key, lift_scale, lifted_bounds, link, locate
from ome.crf.vectors import LANES, add8, fill8, load8, multiply8, store8
from ome.errors import UserError

# Fused multiply-adds make sums faster, and no sum depends on the sign of a zero.
kernel = compiled(fastmath={"contract", "nsz"})


class Lattice(NamedTuple):
    """The lattice of one set of points, without any values.

    Attributes:
        vertices: (N, corners) int32, the vertices of each point, numbered in the order of first use; a
            simplex has d + 1 corners, two joined lattices have the sum of both.
        weights: (N, corners) float32, their weights: barycentric coordinates, which `symmetric_kernel`
            scales.
        num_vertices: V.
        chains: int32, vertices in the order of the blur, direction by direction, see `ome.crf.chains`.
            Chains of one vertex are omitted, since the blur does not change them.
    """

    vertices: Index
    weights: Float
    num_vertices: int
    chains: Index


def build_lattice(features: Float) -> Lattice:
    """Builds the lattice of a set of points, in time and memory linear in N.

    Args:
        features: (N, d) float32, in units of the Gaussian's standard deviation; N >= 1.

    Raises:
        UserError: The features span more lattice cells than a 63-bit key can number.
    """
    scale = lift_scale(features.shape[1])
    origin, strides, _ = number_cells(*lifted_bounds(features, scale))
    vertices, weights, keys, slots = locate(features, scale, origin, strides)
    return Lattice(vertices, weights, len(keys), link(keys, slots, strides))


def number_cells(lower: Float, upper: Float, tiles: int = 1) -> tuple[Key, Key, int]:
    """Defines the keys of vertices: the sum of (coordinate - origin) * stride over the first d coordinates.

    The last coordinate follows from the sum 0. All vertices and their neighbours have different keys.

    Args:
        lower: (d,) minimum of the lifted coordinates of the points.
        upper: (d,) maximum.
        tiles: Number of tiles, which share no vertex; the keys of a tile are larger than those of the last.

    Returns:
        (d,) int64 origin, (d,) int64 strides, and the number of keys of a tile.

    Raises:
        UserError: The points span more lattice cells than a 63-bit key can number.
    """
    margin = 3 * (len(lower) + 1)  # rounding, the simplex and the neighbours add at most d + 1 each
    first, last = np.floor(lower.astype(np.float64)) - margin, np.ceil(upper.astype(np.float64)) + margin
    sides = last + 1 - first
    if not tiles * np.prod(sides) < 2.0**62 or np.abs([first, last]).max() >= 2.0**62:  # also nan
        raise UserError(
            f"CRF: an image spans {' x '.join(f'{side:g}' for side in sides)} lattice cells, too many for a "
            "63-bit key: raise gaussian_sxy, bilateral_sxy or bilateral_srgb, or take smaller tiles"
        )
    origin, extents = first.astype(np.int64), sides.astype(np.int64)
    strides = np.concatenate([[1], np.cumprod(extents)]).astype(np.int64)
    return origin, strides[:-1], int(strides[-1])


def filter_values(lattice: Lattice, values: Float) -> Float:
    """Sums the values of all points weighted by exp(-|f_i - f_j|^2 / 2), approximately.

    Args:
        lattice: The lattice of the points, from `build_lattice`.
        values: (N, W) float32.

    Returns:
        (N, W) float32; the sum for a point includes its own value.
    """
    width = values.shape[1]
    padded = np.zeros((len(values), -(-width // LANES) * LANES), np.float32)
    padded[:, :width] = values
    filtered: Float = splat_blur_slice(lattice, padded)[:, :width] * np.float32(
        gain(lattice.vertices.shape[1] - 1)
    )
    return filtered


def gain(dimensions: int) -> float:
    """Returns the factor after which splat, blur and slice are a sum with a Gaussian of height 1."""
    return float(1.0 / (1.0 + 2.0**-dimensions))


def symmetric_kernel(features: Float, weight: float) -> Lattice:
    """Builds a lattice that applies weight * s_i K_ij s_j, symmetrically normalised, with weight >= 0.

    K_ij = exp(-|f_i - f_j|^2 / 2) and s_i = 1 / sqrt(sum over j of K_ij). The features f are (N, d) float32,
    in units of the Gaussian's standard deviation.

    The weights of the lattice are multiplied by s_i * sqrt(gain * weight). Since splatting and slicing both
    use them, `splat_blur_slice` applies the whole kernel.
    """
    lattice = build_lattice(features)
    sums = filter_values(lattice, np.ones((len(features), 1), np.float32))
    factors = np.sqrt(np.float32(gain(features.shape[1]) * weight)) / np.sqrt(sums + np.float32(1e-20))
    return lattice._replace(weights=lattice.weights * factors)


def join(first: Lattice, second: Lattice) -> Lattice:
    """Joins two lattices of the same points; applying the result gives the sum of both."""
    offset = np.int32(first.num_vertices)
    moved = np.where(second.chains < 0, second.chains - offset, second.chains + offset)
    return Lattice(
        vertices=np.hstack([first.vertices, second.vertices + offset]),
        weights=np.hstack([first.weights, second.weights]),
        num_vertices=first.num_vertices + second.num_vertices,
        chains=np.concatenate([first.chains, moved]),
    )


@kernel
def blur(lattice: Lattice, sums: Float, width: int) -> None:
    """Convolves the (V * W,) vertex values with [1/2, 1, 1/2] along every direction in turn, in place."""
    count = len(lattice.chains)
    for start in range(0, width if count else 0, LANES * WIDEST):
        blur_chains(lattice.chains, count, sums, width, start, min((width - start) // LANES, WIDEST))


@kernel
def splat_blur_slice(lattice: Lattice, values: Float) -> Float:
    """Applies the lattice, without the gain, to the values of its points.

    Args:
        lattice: The lattice.
        values: (N, W) float32, contiguous, W a multiple of 8.

    Returns:
        (N, W) float32.
    """
    num_points, width = values.shape
    corners = lattice.vertices.shape[1]
    rows = values.reshape(values.size)
    sums = np.zeros(lattice.num_vertices * width, np.float32)
    for point in range(num_points):
        for corner in range(corners):
            here = lattice.vertices[point, corner] * width
            weight = fill8(lattice.weights[point, corner])
            for start in range(0, width, LANES):
                product = multiply8(weight, load8(rows, point * width + start))
                store8(sums, here + start, add8(load8(sums, here + start), product))
    blur(lattice, sums, width)
    filtered = np.zeros_like(rows)
    for point in range(num_points):
        for corner in range(corners):
            here = lattice.vertices[point, corner] * width
            weight = fill8(lattice.weights[point, corner])
            for start in range(0, width, LANES):
                place, product = point * width + start, multiply8(weight, load8(sums, here + start))
                store8(filtered, place, add8(load8(filtered, place), product))
    return filtered.reshape(values.shape)
