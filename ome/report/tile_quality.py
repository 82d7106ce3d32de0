"""Scores of single tiles, and counts of errors by weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ome.data.scene_index import mapped_scenes
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, evenly_spaced
from ome.files import read_csv
from ome.geo.raster import open_class_map
from ome.pipeline.layout import map_path, read_pseudo_label
from ome.progress import track
from ome.scoring.calibration import LEVELS, error_counts
from ome.scoring.confusion import confusion_matrix, where_decided
from ome.scoring.scores import Scores

SAMPLED_TILES = 256
"""Largest number of tiles, evenly spaced over all tiles, that are scored one by one."""


@dataclass(frozen=True)
class TileQuality:
    """A tile with the scores of its pixels."""

    tile: Tile
    scores: Scores


@dataclass(frozen=True)
class PseudoMaskQuality:
    """Scores of pseudo masks.

    Attributes:
        tiles: The tiles with their scores.
        errors: Sum of `ome.scoring.calibration.error_counts` of the tiles, by weight.
    """

    tiles: list[TileQuality]
    errors: NDArray[np.int64]


def pseudo_mask_quality(folder: Path, reader: SceneReader, tiles: Sequence[Tile]) -> PseudoMaskQuality:
    """Scores the pseudo masks in a folder tile by tile, if the tile has a reference mask."""
    scored: list[TileQuality] = []
    errors = np.zeros((LEVELS, 2), dtype=np.int64)
    chosen = evenly_spaced([tile for tile in tiles if reader.has_mask(tile.scene)], SAMPLED_TILES)
    for tile in track(chosen, "scores of single tiles", len(chosen)):
        (mask, weight), reference = read_pseudo_label(folder, tile), reader.mask(tile)
        errors += error_counts(weight, mask, reference)
        scored += _quality(tile, mask, reference, reader)
    return PseudoMaskQuality(scored, errors)


def map_quality(folder: Path, reader: SceneReader, size: int) -> list[TileQuality]:
    """Scores the class maps in a segmenter's folder in windows of `size` pixels, if there is a reference."""
    scenes = [
        scene for scene in mapped_scenes(reader.index) if scene.mask and map_path(folder, scene).exists()
    ]
    chosen = evenly_spaced([tile for scene in scenes for tile in scene.tiles(size, size)], SAMPLED_TILES)
    scored: list[TileQuality] = []
    for scene in track(scenes, "scores of windows: scenes", len(scenes)):
        if windows := [tile for tile in chosen if tile.scene == scene.name]:
            with open_class_map(map_path(folder, scene)) as predicted:
                for tile in windows:
                    scored += _quality(tile, predicted.values(*tile.window), reader.mask(tile), reader)
    return scored


def worst(scored: Sequence[TileQuality], count: int) -> list[TileQuality]:
    """The tiles of the lowest mIoU, sorted by mIoU and then by name."""
    return sorted(scored, key=lambda one: (one.scores.miou, one.tile.name))[:count]


def weight_errors(folder: Path, stage: str) -> dict[str, NDArray[np.int64]]:
    """Sums of `error_counts` by criterion, from the files of stage=ablation.

    The file has error rates in percent with two decimals, so the numbers of wrong pixels are rounded to
    0.005 % of the pixels.
    """
    counts: dict[str, NDArray[np.int64]] = {}
    for row in read_csv(folder / f"calibration_{stage}.csv"):
        pixels = int(row["pixels"])
        wrong = round(pixels * float(row["error rate"]) / 100)
        of_criterion = counts.setdefault(row["criterion"], np.zeros((LEVELS, 2), dtype=np.int64))
        of_criterion[int(row["level"])] = pixels - wrong, wrong
    return counts


def _quality(
    tile: Tile, mask: NDArray[np.uint8], reference: NDArray[np.uint8], reader: SceneReader
) -> list[TileQuality]:
    """The tile with its scores; an empty list if no pixel has a class in both mask and reference."""
    names = reader.index.palette.names
    matrix = confusion_matrix(mask, where_decided(mask, reference), len(names))
    return [TileQuality(tile, Scores(matrix, names))] if matrix.any() else []
