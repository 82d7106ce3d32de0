"""Writes and scores the pseudo masks of tiles, and summarises their weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.data.scenes import SceneReader
from ome.data.tiles import Tile
from ome.distributed.collectives import all_reduce_sum, shard
from ome.geo.raster import read_png, write_grey_png, write_palette_png
from ome.ignore import IGNORE
from ome.inference.class_maps import ClassMapsOf, LoadedTile, process_tiles
from ome.inference.tile_scores import TileScorer
from ome.pipeline.layout import TRAIN_TILES, mask_path, read_pseudo_label
from ome.pseudo.labellers import Labeller
from ome.scoring.rows import Row


def write_pseudo_labels(
    folder: Path,
    reader: SceneReader,
    tiles: Sequence[Tile],
    maps_of: ClassMapsOf,
    labeller: Labeller,
    *,
    threads: int,
) -> None:
    """Writes the missing `masks`, `weights` and `cam_argmax` of this process's shard of the tiles.

    The CRF of a tile depends only on that tile, so the result is the same for any number of threads.

    Args:
        folder: Folder of the three folders.
        reader: Reads the images.
        tiles: All tiles, of every process.
        maps_of: Returns their class maps.
        labeller: Computes masks and weights from class maps.
        threads: Number of threads that call it.
    """
    colours = reader.index.palette.flat()

    def label(group: Sequence[LoadedTile]) -> None:
        tiles, images, valid, maps = zip(*group, strict=True)
        for tile, labels in zip(tiles, labeller(images, maps, valid), strict=True):
            write_label(folder, tile, colours, labels.mask, labels.weight, labels.cam_argmax)

    process_tiles(
        "CRF and uncertainty, tiles",
        shard(tiles),
        lambda tile: mask_path(folder, "masks", tile),
        reader,
        maps_of,
        label,
        threads=threads,
        tiles_at_a_time=labeller.tiles_at_a_time,
    )


def write_label(
    folder: Path,
    tile: Tile,
    colours: Sequence[int],
    mask: NDArray[np.uint8],
    weight: NDArray[np.uint8],
    cam_argmax: NDArray[np.uint8],
) -> None:
    """Writes the three images (H, W) of a tile; the mask last: if it exists, the tile is finished."""
    write_grey_png(mask_path(folder, "weights", tile), weight)
    write_palette_png(mask_path(folder, "cam_argmax", tile), cam_argmax, colours)
    write_palette_png(mask_path(folder, "masks", tile), mask, colours)


def score_masks(folder: Path, kind: str, reader: SceneReader, tiles: Sequence[Tile], name: str) -> list[Row]:
    """Scores the `masks` or `cam_argmax` images of tiles with a reference mask.

    Each process reads its shard of the tiles; a collective call.
    """
    scorer = TileScorer(reader)
    for tile in shard(tiles):
        scorer.add(tile, read_png(mask_path(folder, kind, tile)))
    return scorer.gather().rows(name, TRAIN_TILES)


def mask_statistics(folder: Path, tiles: Sequence[Tile], names: Sequence[str]) -> dict[str, Any]:
    """Of pixels with a class: the mean weight (0..255), the fraction of weight 0, pixels by class.

    A collective call.
    """
    if not tiles:
        return {}
    weights, classes = np.zeros((2, 256), dtype=np.int64)
    for tile in shard(tiles):
        mask, weight = read_pseudo_label(folder, tile)
        weights += np.bincount(weight[mask != IGNORE], minlength=256)
        classes += np.bincount(mask.ravel(), minlength=256)
    weights, classes = all_reduce_sum(np.stack([weights, classes]))
    fractions = weights / max(weights.sum(), 1)
    return {
        "mean_weight": float(fractions @ np.arange(256)),
        "zero_weight": float(fractions[0]),
        "mask_pixels": dict(zip(names, classes.tolist(), strict=False)),
    }
