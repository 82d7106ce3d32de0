"""Calibrates the probabilities of a trained segmenter on `val`."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.segmenting import predictor_of, val_tiles
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, evenly_spaced
from ome.distributed.collectives import barrier, is_rank_zero
from ome.ignore import IGNORE
from ome.inference.card import SegmenterCard
from ome.inference.predictor import Predictor
from ome.progress import console
from ome.scoring.temperature import calibration_error, fit_temperature, with_temperature

TILES: Final = 32
"""Largest number of tiles of `val`."""
PIXELS: Final = 10_000
"""Largest number of pixels of a tile; neighbouring pixels add little information."""


def calibrate(config: DictConfig, folder: Path, reader: SceneReader, title: str) -> None:
    """Fits the temperature of a segmenter, if `val` has reference masks, and writes it to the card.

    A collective call.

    Args:
        config: The configuration of the stage.
        folder: Folder of the trained segmenter.
        reader: Reads images and reference masks.
        title: Name of the segmenter in the message.
    """
    tiles = evenly_spaced(val_tiles(reader, config.dataset.tile.size), TILES)
    if tiles and is_rank_zero():
        settings, card = config.prediction, SegmenterCard.read(folder)
        predict = predictor_of(config, folder, card, settings.scales, flip=settings.flip)
        pairs = [_pixels(predict, reader, tile) for tile in tiles]
        probabilities, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        if len(labels):
            temperature = fit_temperature(probabilities, labels)
            replace(card, temperature=temperature).write(folder)
            before = calibration_error(probabilities, labels)
            calibrated = with_temperature(torch.from_numpy(probabilities.T), temperature)
            after = calibration_error(calibrated.numpy().T, labels)
            console.print(
                f"{title}: confidence calibrated on {len(tiles)} tiles of val by temperature "
                f"{temperature:.2f}: expected calibration error {before:.1%} -> {after:.1%}",
                highlight=False,
            )
    barrier()


def _pixels(
    predict: Predictor, reader: SceneReader, tile: Tile
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Evenly spaced labelled pixels of a tile: (N, C) probabilities and (N,) class indices."""
    reference = reader.mask(tile).ravel()
    labelled = np.flatnonzero(reference != IGNORE)
    chosen = labelled[:: -(-len(labelled) // PIXELS) or 1]
    probabilities = predict(reader.image(tile)[None])[0].cpu().numpy()
    return probabilities.reshape(len(probabilities), -1)[:, chosen].T, reference[chosen]
