"""Class maps of tiles from any source, and tile-by-tile processing of them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ome.data.cams import cam_path, read_cams
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.inference.classifier import CamPredictor
from ome.progress import meter

IN_MEMORY: Final = 64
"""Tiles that are loaded, and not yet done, at most."""

StacksOf = Callable[[Sequence[Tile]], Iterable[NDArray[np.float32]]]
"""Gives the normalised class maps (C, H, W) of each of some tiles."""


class LoadedTile(NamedTuple):
    """A tile and its pixels.

    Attributes:
        tile: The tile.
        image: (H, W, 3) uint8 picture.
        valid: (H, W) bool, where it was measured.
        stack: (C, H, W) float32 normalised class maps.
    """

    tile: Tile
    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    stack: NDArray[np.float32]


def _one(shape: tuple[int, ...]) -> int:
    del shape
    return 1


def stacks_from(device: torch.device, folder: Path, reader: SceneReader, tagged: TagTable) -> StacksOf:
    """The CAMs of a finished stage: its files, or where it wrote none, its classifier.

    Args:
        device: Where a classifier computes.
        folder: Of `stage=cam` or `stage=affinity`.
        reader: Reads the images.
        tagged: The tags of the tiles.
    """
    cams, num_classes = folder / "cams", reader.index.palette.num_classes

    def read(tiles: Sequence[Tile]) -> Iterator[NDArray[np.float32]]:
        for tile in tiles:
            yield read_cams(cam_path(cams, tile), num_classes)

    return read if cams.is_dir() else CamPredictor.trained(device, folder, reader, tagged)


def work_on_tiles(
    title: str,
    tiles: Sequence[Tile],
    path_of: Callable[[Tile], Path],
    reader: SceneReader,
    stacks_of: StacksOf,
    job: Callable[[Sequence[LoadedTile]], None],
    *,
    threads: int,
    tiles_at_a_time: Callable[[tuple[int, ...]], int] = _one,
) -> None:
    """Does a job for the tiles whose files are not there yet, in several threads.

    Args:
        title: Of the work, for the progress display.
        tiles: This process's tiles.
        path_of: The file that says of a tile that it is done; the job writes it last.
        reader: Reads the images.
        stacks_of: Gives the class maps.
        job: Works on tiles of one size, in a thread.
        threads: Jobs at a time.
        tiles_at_a_time: The most tiles of a job, from the shape (C, H, W) of their class maps.
    """
    missing = [tile for tile in tiles if not path_of(tile).exists()]
    with (
        meter(title, len(tiles), len(tiles) - len(missing)) as shown,
        ThreadPoolExecutor(threads) as pool,
    ):

        def work(group: Sequence[LoadedTile]) -> None:
            job(group)
            shown.advance(len(group))

        running: deque[Future[None]] = deque()
        try:
            for group in _groups(missing, reader, stacks_of, tiles_at_a_time):
                running.append(pool.submit(work, group))
                if len(running) * len(group) >= IN_MEMORY:
                    running.popleft().result()
            for done in running:
                done.result()
        except BaseException:
            # Whoever wants to stop waits for the tiles that are being worked on, not for all that are loaded.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _groups(
    tiles: Sequence[Tile],
    reader: SceneReader,
    stacks_of: StacksOf,
    tiles_at_a_time: Callable[[tuple[int, ...]], int],
) -> Iterator[list[LoadedTile]]:
    """Loads tiles and gives neighbours with class maps of one shape together."""
    group: list[LoadedTile] = []
    for tile, stack in zip(tiles, stacks_of(tiles), strict=True):
        shape = stack.shape
        if group and (shape != group[0].stack.shape or len(group) >= tiles_at_a_time(shape)):
            yield group
            group = []
        group.append(LoadedTile(tile, reader.display(tile), reader.valid(tile), stack))
    if group:
        yield group
