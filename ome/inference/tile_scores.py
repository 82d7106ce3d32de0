"""Scores of tiles against their references, as rows of the results table."""

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ome.data.cams import read_cams
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.distributed.collectives import all_reduce_sum, shard
from ome.ignore import IGNORE
from ome.pipeline.layout import TRAIN_TILES, cam_path
from ome.pseudo.argmax import decided, strongest
from ome.scoring.confusion import confusion_matrix, where_decided
from ome.scoring.rows import Row
from ome.scoring.scores import Scores


class TileScorer:
    """Sums one confusion matrix over tiles.

    Tiles of scenes without a reference mask, and pixels for which the mask has no class (255), do not count.
    """

    def __init__(self, reader: SceneReader) -> None:
        self._reader = reader
        self._names = reader.index.palette.names
        self._matrix = np.zeros((len(self._names), len(self._names)), dtype=np.int64)
        self._tiles = 0
        self._pixels = 0

    def add(self, tile: Tile, mask: NDArray[np.uint8]) -> None:
        """Compares a predicted mask (H, W) of class indices or 255 with the tile's reference."""
        if self._reader.has_mask(tile.scene):
            self.compare(mask, self._reader.mask(tile))

    def compare(self, mask: NDArray[np.uint8], reference: NDArray[np.uint8]) -> None:
        """Compares the mask of a tile with its reference, both (H, W) uint8."""
        self._matrix += confusion_matrix(mask, where_decided(mask, reference), len(self._names))
        self._tiles += 1
        self._pixels += int((reference != IGNORE).sum())

    def rows(self, name: str, scored_on: str) -> list[Row]:
        """One row, or none if no tile had a reference mask."""
        fraction = float(self._matrix.sum() / self._pixels) if self._pixels else 1.0
        return [Row(name, scored_on, Scores(self._matrix, self._names), fraction)] if self._tiles else []

    def gather(self) -> Self:
        """Adds the counts of the other processes; a collective call, once per process."""
        self._matrix = all_reduce_sum(self._matrix)
        self._tiles, self._pixels = all_reduce_sum(np.array([self._tiles, self._pixels])).tolist()
        return self


def score_cams(folder: Path, reader: SceneReader, tagged: TagTable, name: str) -> list[Row]:
    """Scores the strongest class at each `decided` pixel of the CAMs in a stage's folder.

    Each process reads its shard of the tiles; a collective call.
    """
    scorer = TileScorer(reader)
    for tile in shard(tagged.tiles):
        maps = read_cams(cam_path(folder, tile), len(tagged.names))
        known = decided(maps, reader.valid(tile))
        scorer.add(tile, np.where(known, strongest(maps), np.uint8(IGNORE)))
    return scorer.gather().rows(name, TRAIN_TILES)
