"""Class maps of tiles from any source, and tile-by-tile processing of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ome.data.cams import cam_path, read_cams
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.inference.classifier import CamPredictor
from ome.progress import meter

CHUNK = 64
"""Tiles whose class maps are in memory at a time."""

StacksOf = Callable[[Sequence[Tile]], Iterable[NDArray[np.float32]]]
"""Gives the normalised class maps (C, H, W) of each of some tiles."""

TileJob = Callable[[Tile, NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32]], None]
"""Takes a tile, its picture (H, W, 3), where it was measured (H, W), and its class maps (C, H, W)."""


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
    job: TileJob,
    *,
    threads: int,
) -> None:
    """Does a job for each tile whose file is not there yet, several tiles at a time.

    Args:
        title: Of the work, for the progress display.
        tiles: This process's tiles.
        path_of: The file that says of a tile that it is done; the job writes it last.
        reader: Reads the images.
        stacks_of: Gives the class maps.
        job: Works on a tile, in a thread beside other tiles.
        threads: Tiles at a time.
    """
    missing = [tile for tile in tiles if not path_of(tile).exists()]
    with (
        meter(title, len(tiles), len(tiles) - len(missing)) as shown,
        ThreadPoolExecutor(threads) as pool,
    ):

        def count(
            tile: Tile, image: NDArray[np.uint8], valid: NDArray[np.bool_], stack: NDArray[np.float32]
        ) -> None:
            job(tile, image, valid, stack)
            shown.advance()

        try:
            for start in range(0, len(missing), CHUNK):
                chunk = missing[start : start + CHUNK]
                running = [
                    pool.submit(count, tile, reader.display(tile), reader.valid(tile), stack)
                    for tile, stack in zip(chunk, stacks_of(chunk), strict=True)
                ]
                for done in running:
                    done.result()
        except BaseException:
            # Whoever wants to stop waits for the tiles that are being worked on, not for the whole chunk.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
