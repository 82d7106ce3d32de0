"""Pseudo masks of several tiles: one after the other, or in one pass of the CRF on a GPU."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.crf.inputs import Crf
from ome.crf.torch_crf import BUNDLE, BatchCrf
from ome.pseudo.response import count_votes, response_runs, variance_of_votes
from ome.pseudo.uncertainty import Labelling, PseudoLabel, checked_maps, label_of, pseudo_label

MOST_TILES: Final = 16
"""Largest number of tiles in a pass on a GPU."""

BYTES: Final = 64
"""GPU memory per pixel, class and run in bytes, for the number of lattice vertices of fine texture."""

Images = Sequence[NDArray[np.uint8]]
Cams = Sequence[NDArray[np.float32]]
Validity = Sequence[NDArray[np.bool_]]


@cache  # because memory that torch has reserved since does not count as free
def tiles_in_memory(device: torch.device, shape: tuple[int, ...]) -> int:
    """The largest number of tiles in a pass of the CRF, for class maps of shape (C, H, W).

    It is the number, from 1 to `MOST_TILES`, that fits into half of a GPU's free memory; on a CPU 4.
    """
    if device.type != "cuda":
        return 4
    free, _ = torch.cuda.mem_get_info(device)
    return int(np.clip(free // (2 * BYTES * BUNDLE * math.prod(shape)), 1, MOST_TILES))


class Labeller(Protocol):
    """Computes pseudo masks and weights; several threads may call it."""

    def tiles_at_a_time(self, shape: tuple[int, ...]) -> int:
        """The largest number of tiles of a call, for class maps of shape (C, H, W)."""

    def __call__(self, images: Images, cams: Cams, valid: Validity) -> Iterator[PseudoLabel]:
        """Computes the pseudo labels of tiles of one size, see `pseudo_label`.

        Args:
            images: (H, W, 3) uint8 of each tile.
            cams: (C, H, W) normalised CAM in [0, 1] of each tile.
            valid: (H, W) bool of each tile, false for pixels without data.

        Yields:
            The labels, in order.

        Raises:
            ValueError: See `pseudo_label`.
        """


class TileLabeller:
    """Computes the pseudo labels of one tile after the other.

    Args:
        crf_of: Returns the CRF of an image (H, W, 3) uint8.
        labelling: How class maps become masks and weights.
    """

    def __init__(self, crf_of: Callable[[NDArray[np.uint8]], Crf], labelling: Labelling) -> None:
        self._crf_of = crf_of
        self._labelling = labelling

    def tiles_at_a_time(self, shape: tuple[int, ...]) -> int:
        """One: several threads process different tiles."""
        del shape
        return 1

    def __call__(self, images: Images, cams: Cams, valid: Validity) -> Iterator[PseudoLabel]:
        """See `Labeller`."""
        for image, cam, known in zip(images, cams, valid, strict=True):
            yield pseudo_label(self._crf_of(image), cam, self._labelling, known)


class BatchLabeller:
    """Computes the pseudo labels of several tiles in one pass of the CRF; threads wait for each other.

    Args:
        crf_of: Returns the CRFs of (B, 3, H, W) uint8 images on their device.
        labelling: How class maps become masks and weights.
        device: Device of the CRFs.
    """

    def __init__(
        self, crf_of: Callable[[Tensor], BatchCrf], labelling: Labelling, device: torch.device
    ) -> None:
        self._crf_of = crf_of
        self._labelling = labelling
        self._device = device
        self._lock = threading.Lock()

    def tiles_at_a_time(self, shape: tuple[int, ...]) -> int:
        """See `tiles_in_memory`."""
        return tiles_in_memory(self._device, shape)

    def __call__(self, images: Images, cams: Cams, valid: Validity) -> Iterator[PseudoLabel]:
        """See `Labeller`."""
        maps = [checked_maps(cam, known, self._labelling) for cam, known in zip(cams, valid, strict=True)]
        with self._lock:
            refined, variances = self._refine(images, maps, valid)
        for parts in zip(maps, refined, variances, valid, strict=True):
            yield label_of(*parts, self._labelling)

    def _refine(
        self, images: Images, maps: Cams, valid: Validity
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float64]]]:
        """The output of the CRF (B, C, H, W), and the variance (H, W) of each tile."""
        pictures = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2)
        stacks = torch.from_numpy(np.stack(maps)).to(self._device)
        crf, scales = self._crf_of(pictures), self._labelling.response_scales
        refined = crf.infer(stacks)
        present = _present_classes(refined, torch.from_numpy(np.stack(valid)).to(self._device))
        variances = [np.zeros(stack.shape[1:]) for stack in maps]
        for tiles in _tiles_by_count(present):
            if len(tiles) < len(maps):
                crf = self._crf_of(pictures[tiles])
            classes = torch.stack([stacks[tile, present[tile]] for tile in tiles])
            powers, runs = response_runs(classes.shape[1], scales)
            winners = crf.winners(classes, powers).transpose(0, 1)
            votes = torch.stack(count_votes(winners, runs)).to(torch.int32).cpu().numpy()
            for place, tile in enumerate(tiles):
                variances[tile] = variance_of_votes(list(votes[:, place]), len(scales))
        return refined.cpu().numpy(), variances


def _present_classes(probabilities: Tensor, valid: Tensor) -> list[list[int]]:
    """The classes that win a valid pixel of each tile, ascending, from (B, C, H, W) probabilities."""
    winners, classes = probabilities.argmax(1), range(probabilities.shape[1])
    wins = torch.stack([((winners == label) & valid).any(2).any(1) for label in classes], 1).cpu().numpy()
    return [np.flatnonzero(row).tolist() for row in wins]


def _tiles_by_count(present: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Groups tiles by their number of classes, without those of one class, which have no uncertainty."""
    counts = np.array([len(classes) for classes in present])
    for count in np.unique(counts[counts > 1]):
        yield np.flatnonzero(counts == count).tolist()
