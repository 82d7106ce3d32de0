"""The order in which a training sees its tiles."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Key = tuple[int, int]
"""Index of a tile, and its position in the endless stream of samples, which seeds the augmentation."""


class StreamSampler(Sampler[Key]):
    """Draws tiles from an endless stream of shuffled passes, the same for every number of processes.

    Position `p` of the stream is tile `p mod n` of pass `p div n`, and pass `k` is shuffled by
    `(seed, k)`. Epoch `e` covers the positions `[e L, (e + 1) L)`, and process `r` of `w` every `w`-th of
    them, so that an interrupted run, a resumed run and a run on more processes see the same samples.

    Args:
        tiles: Number of tiles, n.
        samples: Samples in an epoch over all processes, L.
        seed: Determines the order.
        rank: Rank of this process.
        world_size: Number of processes; divides `samples`.
        first: First position to yield, a multiple of `world_size`, so that an epoch can resume in its middle.
    """

    def __init__(
        self, tiles: int, samples: int, seed: int, rank: int = 0, world_size: int = 1, first: int = 0
    ) -> None:
        self._tiles = tiles
        self._samples = samples
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._first = first
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; the trainer calls it before each."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._samples // self._world_size

    def __iter__(self) -> Iterator[Key]:
        end = (self._epoch + 1) * self._samples
        start = max(end - self._samples, self._first)
        order: NDArray[np.int64] | None = None
        shuffled = -1
        for position in range(start + self._rank, end, self._world_size):
            index_pass, within = divmod(position, self._tiles)
            if order is None or index_pass != shuffled:
                order = np.random.default_rng([self._seed, index_pass]).permutation(self._tiles)
                shuffled = index_pass
            yield int(order[within]), position
