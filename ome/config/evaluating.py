"""Evaluates a trained segmenter: calibrates its confidence on `val`, maps the scenes, scores the maps."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.objects import hardware
from ome.config.segmenting import predictor_of, val_tiles
from ome.data.scene_index import evaluation_split, mapped_scenes
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, evenly_spaced
from ome.distributed.collectives import all_reduce_sum, barrier, is_rank_zero, shard
from ome.geo.raster import open_class_map
from ome.ignore import IGNORE
from ome.inference.card import SegmenterCard, described_views
from ome.inference.map_rows import MapOptions, windows_at_a_time
from ome.inference.mapping import write_class_map
from ome.inference.outputs import on_host
from ome.inference.predictor import Predictor
from ome.pipeline.layout import map_path
from ome.progress import console, meter
from ome.scoring.confusion import confusion_matrix
from ome.scoring.rows import Row
from ome.scoring.scores import Scores
from ome.scoring.temperature import calibration_error, fit_temperature, with_temperature

TILES: Final = 32
"""Largest number of tiles of `val`."""
PIXELS: Final = 10_000
"""Largest number of pixels of a tile; neighbouring pixels add little information."""


def evaluate_segmenter(config: DictConfig, folder: Path, reader: SceneReader, title: str) -> list[Row]:
    """Calibrates a trained segmenter, writes the missing maps of the scenes, and scores them.

    A collective call: each process maps and reads its shard of the scenes.

    Returns:
        One row, named by the title, of the evaluation split; none if no scene of it has a reference mask.
    """
    barrier()  # rank 0 writes the card
    prediction, trained = config.prediction, SegmenterCard.read(folder)
    scales, flip, tta = prediction.scales, prediction.flip, prediction.tta
    card = trained.for_views(scales, flip=flip, tta=tta)
    predictor = cache(partial(predictor_of, config, folder, card, scales, flip=flip))
    tiles = evenly_spaced(val_tiles(reader, card.tile), TILES)
    if tiles and card.temperature is None and is_rank_zero():
        views = described_views(scales, flip=flip, tta=tta)
        _calibrate(predictor(), replace(trained, views=views), folder, reader, tiles, title)
    # Sharded before the check for existing maps, which other processes may be writing.
    missing = [scene for scene in shard(mapped_scenes(reader.index)) if not map_path(folder, scene).exists()]
    if missing:
        windows = windows_at_a_time(prediction.batch, card.tile, hardware(config).device())
        options = MapOptions(stride=prediction.stride, batch=windows)
        with meter(f"{title}: rows", sum(scene.height for scene in missing)) as progress:
            for scene in missing:
                image = reader.whole(scene.name)
                write_class_map(map_path(folder, scene), image, card, predictor(), options, progress)
    barrier()
    return _scored(folder, reader, title)


def _scored(folder: Path, reader: SceneReader, title: str) -> list[Row]:
    index, names = reader.index, reader.index.palette.names
    split = evaluation_split(index)
    scenes = [scene for scene in index.split(split) if scene.mask is not None]
    matrix = np.zeros((len(names), len(names)), dtype=np.int64)
    for scene in shard(scenes):
        with open_class_map(map_path(folder, scene)) as predicted:
            for strip in scene.whole.strips():
                matrix += confusion_matrix(predicted.values(*strip.window), reader.mask(strip), len(names))
    return [Row(title, f"{split} scenes", Scores(all_reduce_sum(matrix), names))] if scenes else []


def _calibrate(
    predict: Predictor,
    card: SegmenterCard,
    folder: Path,
    reader: SceneReader,
    tiles: Sequence[Tile],
    title: str,
) -> None:
    """Fits the temperature of a segmenter on tiles with reference masks, and writes it to the card."""
    pairs = [_pixels(predict, reader, tile) for tile in tiles]
    probabilities, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    if not len(labels):
        return
    temperature = fit_temperature(probabilities, labels)
    replace(card, temperature=temperature).write(folder)
    before = calibration_error(probabilities, labels)
    calibrated = with_temperature(torch.from_numpy(probabilities.T), temperature)
    after = calibration_error(calibrated.numpy().T, labels)
    console.print(
        f"{title}: confidence calibrated on {len(tiles)} tiles of val by temperature "
        f"{temperature:.2f}: expected calibration error {before:.1%} -> {after:.1%}"
    )


def _pixels(
    predict: Predictor, reader: SceneReader, tile: Tile
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Evenly spaced labelled pixels of a tile: (N, C) probabilities and (N,) class indices."""
    reference = reader.mask(tile).ravel()
    labelled = np.flatnonzero(reference != IGNORE)
    chosen = labelled[:: -(-len(labelled) // PIXELS) or 1]
    probabilities = on_host(predict(reader.image(tile)[None])[0], f"the predictions of {tile.name}")
    return probabilities.reshape(len(probabilities), -1)[:, chosen].T, reference[chosen]
