"""Random walk of CAMs along pixel affinities.

Ahn & Kwak, *Learning Pixel-level Semantic Affinity with Image-level Supervision*, CVPR 2018, section 3.3. The
public code squares a dense transition matrix T six times. Here T is sparse and is multiplied with the maps 64
times, so that memory grows with the pairs of neighbours and not with the square of the number of cells.

Names of dimensions: C classes, h x w cells of the grid, P pairs of cells.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_array
from torch.nn import functional as F

from ome.pseudo.fusion import normalise_cam, replace_zero_cams


def transition_matrix(
    affinity: NDArray[np.floating], pairs: NDArray[np.int64], cells: int, beta: float
) -> csr_array:
    """Builds the transition matrix of the walk.

    Args:
        affinity: (P,) in [0, 1], the affinity of each pair.
        pairs: (2, P) indices of the cells of each pair, without repetitions. Pairs have no direction.
        cells: Number of cells h w.
        beta: Power of the affinity; a higher power restricts the walk to more similar cells.

    Returns:
        T, (h w, h w): affinity^beta between neighbours and 1 from each cell to itself, each column divided by
        its sum. Row vectors are multiplied from the left: (x T)_j is a mean of x over j and its neighbours.
    """
    diagonal = np.arange(cells)
    strength = affinity**beta
    values = np.concatenate([strength, strength, np.ones(cells, affinity.dtype)])
    rows, columns = np.concatenate([pairs, pairs[::-1], np.stack([diagonal, diagonal])], axis=1)
    sums = np.bincount(columns, values, minlength=cells).astype(values.dtype)
    return csr_array((values / sums[columns], (rows, columns)), shape=(cells, cells))


def random_walk(maps: NDArray[np.floating], transition: csr_array, steps: int) -> NDArray[np.floating]:
    """Applies steps of the walk to class maps.

    Args:
        maps: (C, h, w).
        transition: T of `transition_matrix`.
        steps: Number of steps n.

    Returns:
        maps T^n, (C, h, w), within the range of values of each map.
    """
    # Maps are stored as columns, so that each step is a product of a CSR matrix and a dense matrix.
    transposed = csr_array(transition.T)
    vectors = maps.reshape(len(maps), -1).T
    for _ in range(steps):
        vectors = transposed @ vectors
    walked: NDArray[np.floating] = np.ascontiguousarray(vectors.T).reshape(maps.shape)
    return walked


def walk_cams(
    cams: NDArray[np.float32],
    tags: NDArray[np.uint8],
    affinity: NDArray[np.float32],
    pairs: NDArray[np.int64],
    valid: NDArray[np.bool_],
    *,
    stride: int = 8,
    beta: float = 8.0,
    steps: int = 64,
) -> NDArray[np.float32]:
    """Refines the CAMs of a tile by the random walk on a coarser grid.

    The walk does not enter cells without data, which get the maps of the nearest cell. Its result is
    stretched again, also if the CAMs compete: each tagged class reaches 1 somewhere, as in CAMs that do not.

    Args:
        cams: (C, H, W) float32 in [0, 1].
        tags: (C,) of 0 and 1.
        affinity: (P,) float32 in (0, 1], the affinity of pairs of cells of the grid.
        pairs: (2, P) row-major indices of the cells of each pair.
        valid: (H, W) bool, false for pixels without data.
        stride: Side of a cell in pixels; the grid has ceil(H / stride) x ceil(W / stride) cells.
        beta: See `transition_matrix`.
        steps: Steps of the walk; the original squares T 6 times, which are 2^6 steps.

    Returns:
        (C, H, W) float32 in [0, 1], stretched per class as by `normalise_cam`, even if the CAMs compete; 0
        for classes without a tag.
    """
    height, width = cams.shape[1:]
    known = torch.from_numpy(valid)
    share = F.avg_pool2d(known.float()[None], stride, ceil_mode=True)
    means = F.avg_pool2d(torch.from_numpy(cams) * known, stride, ceil_mode=True)
    coarse, inside = torch.where(share > 0, means / share, 0.0).numpy(), (share[0] > 0).numpy()
    rows, columns = inside.shape
    entered = affinity * inside.ravel()[pairs].all(axis=0)
    walked = random_walk(coarse, transition_matrix(entered, pairs, rows * columns, beta), steps)
    if inside.any():  # else the resize would lower the maps beside cells without data
        row, column = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        walked = walked[:, row, column]
    size = (rows * stride, columns * stride)
    upsampled = F.interpolate(torch.from_numpy(walked)[None], size, mode="bilinear", align_corners=False)[0]
    present = torch.from_numpy(tags)
    normalised = normalise_cam(upsampled[:, :height, :width], present, known)
    refined: NDArray[np.float32] = replace_zero_cams(normalised, present).numpy()
    return refined
