"""Class maps of tiles, from files or from a classifier, and their processing in threads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ome.data.cams import read_cams
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.inference.classifier import CamPredictor
from ome.inference.threads import tasks_in
from ome.pipeline.layout import CAMS, cam_path
from ome.progress import meter

ClassMapsOf = Callable[[Sequence[Tile]], Iterable[NDArray[np.float32]]]
"""Returns the normalised class maps of each tile, (C, H, W) float32 in [0, 1]."""


class LoadedTile(NamedTuple):
    """A tile and its pixels.

    Attributes:
        tile: The tile.
        image: (H, W, 3) uint8 picture.
        valid: (H, W) bool, false for pixels without data.
        maps: (C, H, W) float32 normalised class maps.
    """

    tile: Tile
    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    maps: NDArray[np.float32]


def class_maps_from(device: torch.device, folder: Path, reader: SceneReader, tagged: TagTable) -> ClassMapsOf:
    """The CAMs of a finished stage: from its files or, if it wrote none, from its classifier.

    Args:
        device: Device of the classifier.
        folder: Folder of `stage=cam` or `stage=affinity`.
        reader: Reads the images.
        tagged: The tags of the tiles.
    """
    num_classes = reader.index.palette.num_classes

    def read(tiles: Sequence[Tile]) -> Iterator[NDArray[np.float32]]:
        for tile in tiles:
            yield read_cams(cam_path(folder, tile), num_classes)

    return read if (folder / CAMS).is_dir() else CamPredictor.trained(device, folder, reader, tagged)


def process_tiles(
    title: str,
    tiles: Sequence[Tile],
    path_of: Callable[[Tile], Path],
    reader: SceneReader,
    maps_of: ClassMapsOf,
    job: Callable[[Sequence[LoadedTile]], None],
    *,
    threads: int,
    tiles_at_a_time: Callable[[tuple[int, ...]], int] = lambda _shape: 1,
) -> None:
    """Runs jobs for the tiles whose files do not exist yet, in several threads.

    Args:
        title: Title of the progress display.
        tiles: The tiles of this process.
        path_of: Returns the path of the last file that the job writes for a tile.
        reader: Reads the images.
        maps_of: Returns the class maps.
        job: Processes tiles of one size; called in a thread.
        threads: Number of threads.
        tiles_at_a_time: Returns the largest number of tiles of a job for class maps of a shape (C, H, W).
    """
    missing = [tile for tile in tiles if not path_of(tile).exists()]
    with meter(title, len(tiles), len(tiles) - len(missing)) as progress, tasks_in(threads) as submit:

        def work(group: Sequence[LoadedTile]) -> None:
            job(group)
            progress.advance(len(group))

        for group in _groups(missing, reader, maps_of, tiles_at_a_time):
            submit(partial(work, group), len(group))


def _groups(
    tiles: Sequence[Tile],
    reader: SceneReader,
    maps_of: ClassMapsOf,
    tiles_at_a_time: Callable[[tuple[int, ...]], int],
) -> Iterator[list[LoadedTile]]:
    """Loads tiles and groups consecutive tiles whose class maps have the same shape."""
    group: list[LoadedTile] = []
    for tile, maps in zip(tiles, maps_of(tiles), strict=True):
        if group and (maps.shape != group[0].maps.shape or len(group) >= tiles_at_a_time(maps.shape)):
            yield group
            group = []
        group.append(LoadedTile(tile, reader.display(tile), reader.valid(tile), maps))
    if group:
        yield group
