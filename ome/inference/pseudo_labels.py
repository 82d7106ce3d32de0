"""Writes, scores and summarises pseudo masks and weights of tiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ome.data.scenes import SceneReader
from ome.data.tiles import Tile
from ome.distributed.collectives import all_reduce_sum, shard
from ome.geo.raster import read_png, write_grey_png, write_palette_png
from ome.ignore import IGNORE
from ome.inference.class_maps import LoadedTile, StacksOf, work_on_tiles
from ome.inference.tile_scores import TileScorer
from ome.pipeline.layout import TRAIN_TILES, mask_path
from ome.pseudo.labellers import Labeller
from ome.scoring.rows import Row


def write_pseudo_labels(
    folder: Path,
    reader: SceneReader,
    tiles: Sequence[Tile],
    stacks_of: StacksOf,
    labeller: Labeller,
    *,
    threads: int,
) -> None:
    """Writes `masks`, `weights` and `cam_argmax` of this process's part of the tiles; keeps what is there.

    Pixels that were not measured have no class and weight 0. The CRF of a tile depends on that tile alone, so
    the result is the same for any number of threads.

    Args:
        folder: Where the three folders are made.
        reader: Reads the images.
        tiles: All tiles, of every process.
        stacks_of: Gives their class maps.
        labeller: Turns class maps into masks and weights.
        threads: Threads that call it.
    """
    colours = reader.index.palette.flat()

    def label(group: Sequence[LoadedTile]) -> None:
        images, stacks = [one.image for one in group], [one.stack for one in group]
        for (tile, _, valid, _), labels in zip(group, labeller(images, stacks), strict=True):
            cam_argmax, mask = (np.where(valid, part, IGNORE) for part in (labels.cam_argmax, labels.mask))
            write_grey_png(mask_path(folder, "weights", tile), np.where(valid, labels.weight, 0))
            write_palette_png(mask_path(folder, "cam_argmax", tile), cam_argmax, colours)
            # The mask comes last: where it is, the tile is done.
            write_palette_png(mask_path(folder, "masks", tile), mask, colours)

    work_on_tiles(
        "CRF and uncertainty, tiles",
        shard(tiles),
        lambda tile: mask_path(folder, "masks", tile),
        reader,
        stacks_of,
        label,
        threads=threads,
        tiles_at_a_time=labeller.tiles_at_a_time,
    )


def score_masks(folder: Path, kind: str, reader: SceneReader, tiles: Sequence[Tile], name: str) -> list[Row]:
    """Scores the `masks` or `cam_argmax` images where there is a reference, each process its part."""
    scorer = TileScorer(reader)
    for tile in shard(tiles):
        scorer.add(tile, read_png(mask_path(folder, kind, tile)))
    return scorer.gather().rows(name, TRAIN_TILES)


def weight_levels(folder: Path, tiles: Sequence[Tile]) -> dict[str, Any]:
    """The mean weight, and the share of pixels without any; all processes count together."""
    if not tiles:
        return {}
    counts = np.zeros(256, dtype=np.int64)
    for tile in shard(tiles):
        counts += np.bincount(read_png(mask_path(folder, "weights", tile)).ravel(), minlength=256)
    counts = all_reduce_sum(counts)
    shares = counts / counts.sum()
    return {"mean_weight": float(shares @ np.arange(256)), "zero_weight": float(shares[0])}
