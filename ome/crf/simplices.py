"""Simplices of the permutohedral lattice: the vertices around a point, and the neighbours of a vertex.

The lattice vertices are the integer vectors with d + 1 coordinates of sum 0 that are equal modulo d + 1; this
remainder, 0..d, numbers the vertices of a simplex. Names of dimensions are those of `ome.crf.lattice`.
"""

import numpy as np
from numpy.typing import NDArray

from ome.compiled import compiled

Float = NDArray[np.float32]
Index = NDArray[np.int32]
Key = NDArray[np.int64]

# No fused multiply-adds: a rounding difference can put a point into another simplex.
kernel = compiled()

EMPTY = -1
HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing


def lift_scale(dimensions: int) -> Float:
    """Returns (d,) float32 factors of the features, with which the blur has standard deviation 1."""
    index = np.arange(dimensions)
    deviation = np.sqrt(2.0 / 3.0) * (dimensions + 1)
    scale: Float = (deviation / np.sqrt((index + 1.0) * (index + 2.0))).astype(np.float32)
    return scale


@kernel
def lift(feature: Float, scale: Float, lifted: Float) -> None:
    """Maps a feature (d,) to the hyperplane of sum 0; writes its coordinates to `lifted` (d + 1,)."""
    total = np.float32(0.0)
    for axis in range(len(feature), 0, -1):
        coordinate = feature[axis - 1] * scale[axis - 1]
        lifted[axis] = total - np.float32(axis) * coordinate
        total += coordinate
    lifted[0] = total


@kernel
def lifted_bounds(features: Float, scale: Float) -> tuple[Float, Float]:
    """Returns the minima and maxima of the first d lifted coordinates over all points, each (d,) float32."""
    dimensions = features.shape[1]
    lower = np.full(dimensions, np.inf, np.float32)
    upper = np.full(dimensions, -np.inf, np.float32)
    lifted = np.empty(dimensions + 1, np.float32)
    for point in range(len(features)):
        lift(features[point], scale, lifted)
        for axis in range(dimensions):
            lower[axis] = min(lower[axis], lifted[axis])
            upper[axis] = max(upper[axis], lifted[axis])
    return lower, upper


@kernel
def enclose(lifted: Float, corner: Index, rank: Index, barycentric: Float) -> None:
    """Finds the simplex around a lifted point.

    Args:
        lifted: (d + 1,) coordinates of the point.
        corner: (d + 1,), written: the simplex's vertex of remainder 0, all coordinates multiples of d + 1.
        rank: (d + 1,), written: the rank of each axis when the offsets from `corner` are sorted in descending
            order.
        barycentric: (d + 2,), written: the weight of the vertex of remainder k at index k; the last element
            is scratch space.
    """
    size = len(lifted)
    inverse = np.float32(1.0) / np.float32(size)
    surplus = 0
    for axis in range(size):
        nearest = int(np.rint(lifted[axis] * inverse))
        corner[axis] = nearest * size
        surplus += nearest
        rank[axis] = 0
    for axis in range(size):
        offset = lifted[axis] - np.float32(corner[axis])
        for other in range(axis + 1, size):
            if offset < lifted[other] - np.float32(corner[other]):
                rank[axis] += 1
            else:
                rank[other] += 1
    # Rounding may leave the hyperplane: change the axes with the largest rounding errors.
    for axis in range(size):
        rank[axis] += surplus
        if rank[axis] < 0:
            rank[axis] += size
            corner[axis] += size
        elif rank[axis] >= size:
            rank[axis] -= size
            corner[axis] -= size
    barycentric[:] = 0.0
    for axis in range(size):
        offset = (lifted[axis] - np.float32(corner[axis])) * inverse
        barycentric[size - 1 - rank[axis]] += offset
        barycentric[size - rank[axis]] -= offset
    barycentric[0] += np.float32(1.0) + barycentric[size]


@kernel
def find(key: int, keys: Key, slots: Index) -> int:
    """Returns the slot of `key`, or the empty slot in which to insert it (open addressing)."""
    mask = len(slots) - 1
    slot = int((np.uint64(key) * HASH_MULTIPLIER) >> np.uint64(32)) & mask
    while slots[slot] != EMPTY and keys[slots[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@kernel
def rehash(keys: Key, slots: Index) -> Index:
    """Returns a hash table of the same keys with twice as many slots."""
    larger = np.full(2 * len(slots), EMPTY, np.int32)
    for vertex in range(len(keys)):
        larger[find(keys[vertex], keys, larger)] = vertex
    return larger


@kernel
def locate(features: Float, scale: Float, origin: Key, strides: Key) -> tuple[Index, Float, Key, Index]:
    """Finds and numbers the vertices of every point's simplex.

    The key of a vertex is the mixed-radix number of its first d coordinates (the last follows from the sum
    0), so that the keys of two neighbours in a direction always have the same difference.

    Returns:
        `vertices` and `weights` as in `ome.crf.lattice.Lattice`, the (V,) keys and the hash table's slots.
    """
    num_points, dimensions = features.shape
    size = dimensions + 1
    vertices = np.empty((num_points, size), np.int32)
    weights = np.empty((num_points, size), np.float32)
    capacity = 1024
    while capacity < 2 * num_points:
        capacity *= 2
    slots = np.full(capacity, EMPTY, np.int32)
    keys = np.empty(num_points * size, np.int64)
    count = 0
    lifted, barycentric = np.empty(size, np.float32), np.empty(size + 1, np.float32)
    corner, rank = np.empty(size, np.int32), np.empty(size, np.int32)
    for point in range(num_points):
        lift(features[point], scale, lifted)
        enclose(lifted, corner, rank, barycentric)
        for remainder in range(size):
            key = 0
            for axis in range(dimensions):
                step = remainder if rank[axis] < size - remainder else remainder - size
                key += (corner[axis] + step - origin[axis]) * strides[axis]
            slot = find(key, keys, slots)
            if slots[slot] == EMPTY:
                slots[slot] = count
                keys[count] = key
                count += 1
                if 2 * count > len(slots):
                    slots = rehash(keys[:count], slots)
                    slot = find(key, keys, slots)
            vertices[point, remainder] = slots[slot]
            weights[point, remainder] = barycentric[remainder]
    return vertices, weights, keys[:count].copy(), slots


@kernel
def link(keys: Key, slots: Index, strides: Key) -> Index:
    """Links the vertices of each blur direction to chains (see `ome.crf.lattice.Lattice`)."""
    num_vertices, dimensions = len(keys), len(strides)
    chains = np.empty(num_vertices * (dimensions + 1), np.int32)
    following = np.empty(num_vertices, np.int32)
    preceded = np.empty(num_vertices, np.bool_)
    filled = 0
    for direction in range(dimensions + 1):
        step = strides.sum()
        if direction < dimensions:
            step -= (dimensions + 1) * strides[direction]
        preceded[:] = False
        for vertex in range(num_vertices):
            following[vertex] = slots[find(keys[vertex] + step, keys, slots)]
            if following[vertex] != EMPTY:
                preceded[following[vertex]] = True
        for vertex in range(num_vertices):
            if preceded[vertex] or following[vertex] == EMPTY:
                continue
            link_vertex = vertex
            while link_vertex != EMPTY:
                chains[filled] = link_vertex
                filled += 1
                link_vertex = following[link_vertex]
            chains[filled - 1] = ~chains[filled - 1]  # marks the end
    return chains[:filled].copy()
