"""Scores of single tiles, and how well their weights predict the errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ome.data.scenes import SceneReader
from ome.data.splits import mapped_scenes
from ome.data.tiles import Tile, evenly_spaced, tile_scene
from ome.files import read_csv
from ome.geo.raster import read_class_map
from ome.ignore import IGNORE
from ome.pipeline.layout import map_path, read_pseudo_label
from ome.progress import track
from ome.scoring.calibration import LEVELS, error_counts
from ome.scoring.confusion import confusion_matrix
from ome.scoring.scores import Scores

JUDGED = 256
"""Tiles that are scored one by one, evenly spaced over those there are."""


@dataclass(frozen=True)
class Judged:
    """A tile with the scores of its own pixels."""

    tile: Tile
    scores: Scores


@dataclass(frozen=True)
class PseudoMasksJudged:
    """What `judge_pseudo_masks` found.

    Attributes:
        tiles: The tiles with their scores.
        errors: Sum of `ome.scoring.calibration.error_counts` over them, by weight.
    """

    tiles: list[Judged]
    errors: NDArray[np.int64]


def judge_pseudo_masks(folder: Path, reader: SceneReader, tiles: Sequence[Tile]) -> PseudoMasksJudged:
    """Scores the pseudo masks in a folder, tile by tile, where there is a reference."""
    judged: list[Judged] = []
    errors = np.zeros((LEVELS, 2), dtype=np.int64)
    chosen = evenly_spaced([tile for tile in tiles if reader.has_mask(tile.scene)], JUDGED)
    for tile in track(chosen, "scores of single tiles", len(chosen)):
        (mask, weight), reference = read_pseudo_label(folder, tile), reader.mask(tile)
        errors += error_counts(weight, mask, reference)
        judged += _judged(tile, mask, reference, reader)
    return PseudoMasksJudged(judged, errors)


def judge_maps(folder: Path, reader: SceneReader, size: int) -> list[Judged]:
    """Scores the class maps in a segmenter's folder by windows of `size` pixels, where a reference is."""
    scenes = [
        scene for scene in mapped_scenes(reader.index) if scene.mask and map_path(folder, scene).exists()
    ]
    windows = [
        tile for scene in scenes for tile in tile_scene(scene.name, scene.height, scene.width, size, size)
    ]
    chosen = evenly_spaced(windows, JUDGED)
    judged: list[Judged] = []
    for scene in track(scenes, "scores of windows: scenes", len(scenes)):
        own = [tile for tile in chosen if tile.scene == scene.name]
        if own:
            predicted = read_class_map(map_path(folder, scene))
            for tile in own:
                judged += _judged(tile, window(predicted, tile), reader.mask(tile), reader)
    return judged


def worst(judged: Sequence[Judged], count: int) -> list[Judged]:
    """The tiles of the lowest mIoU, the lowest first; of equal ones, in the order of their names."""
    return sorted(judged, key=lambda one: (one.scores.miou, one.tile.name))[:count]


def window(values: NDArray[np.uint8], tile: Tile) -> NDArray[np.uint8]:
    """The part of a scene's pixels (H, W) that belongs to a tile."""
    return values[tile.row : tile.row + tile.height, tile.column : tile.column + tile.width]


def weight_errors(folder: Path, stage: str) -> dict[str, NDArray[np.int64]]:
    """Reads from the files of stage=ablation what `error_counts` had counted, by criterion.

    The file gives rates in percent with two decimals, so that wrong pixels are counted to 0.005 %.
    """
    counts: dict[str, NDArray[np.int64]] = {}
    for row in read_csv(folder / f"calibration_{stage}.csv"):
        pixels = int(row["pixels"])
        wrong = round(pixels * float(row["error rate"]) / 100)
        own = counts.setdefault(row["criterion"], np.zeros((LEVELS, 2), dtype=np.int64))
        own[int(row["level"])] = pixels - wrong, wrong
    return counts


def _judged(
    tile: Tile, mask: NDArray[np.uint8], reference: NDArray[np.uint8], reader: SceneReader
) -> list[Judged]:
    """The tile with its scores, or nothing where no pixel counts."""
    names = reader.index.palette.names
    counted = np.where(mask == IGNORE, mask, reference)
    if (counted == IGNORE).all():
        return []
    return [Judged(tile, Scores(confusion_matrix(mask, counted, len(names)), names))]
