"""A scene of any size -> rows of classes, confidence and probabilities."""

from collections.abc import Generator
from dataclasses import dataclass
from threading import Lock
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ome.data.byte_image import ByteImage
from ome.errors import UserError
from ome.extras import require
from ome.geo.sliding import PredictBatch, predict_windows, window_stride
from ome.ignore import IGNORE
from ome.inference.card import SegmenterCard
from ome.scoring.temperature import with_temperature

SURE: Final = 254
"""The byte of a probability of 1; 255 is nodata."""


@dataclass(frozen=True)
class MapOptions:
    """Outputs beside the class map of a scene, and the layout of its windows.

    Attributes:
        confidence: The probability of the class on the map.
        probabilities: The probability of every class.
        polygons: A GeoPackage of the map's regions.
        simplify: Pixels by which outlines may move to become simpler.
        stride: Pixels from one window to the next, as a part of a window's side.
        batch: Windows predicted together.
    """

    confidence: bool = False
    probabilities: bool = False
    polygons: bool = False
    simplify: float = 1.0
    stride: float = 0.625
    batch: int = 8

    def pixels(self, tile: int) -> int:
        """Pixels from one window of that side to the next."""
        return window_stride(tile, self.stride)

    def check(self) -> None:
        """Refuses what cannot work before long work begins.

        Raises:
            UserError: A value is out of its range, or what polygons need is not installed.
        """
        if not 0 < self.stride <= 1:
            raise UserError(f"prediction.stride={self.stride}: give a part of a tile's side, such as 0.5")
        if self.simplify < 0:
            raise UserError(
                f"stage.predict.simplify={self.simplify}: give pixels, such as 1.0; 0 keeps every corner"
            )
        if self.polygons:
            require("vector", "stage.predict.polygons=true")


class PredictedRows(NamedTuple):
    """Rows of a map.

    Attributes:
        row: The first.
        classes: (h, W) uint8 class indices, 255 where nothing was measured.
        confidence: (h, W) uint8, 0..254 for 0 to 1, 255 likewise.
        probabilities: (C, h, W) uint8, likewise.
    """

    row: int
    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    probabilities: NDArray[np.uint8]


def predict_rows(
    scene: ByteImage,
    card: SegmenterCard,
    predict: PredictBatch,
    options: MapOptions,
    first_row: int = 0,
    stop_row: int | None = None,
    *,
    all_classes: bool = True,
) -> Generator[PredictedRows]:
    """Predicts a scene from top to bottom.

    Args:
        scene: The scene.
        card: Of the segmenter.
        predict: The segmenter.
        options: How windows lie.
        first_row: Where an earlier call stopped.
        stop_row: Where another process takes over, see `rows_of_part`; None: the end.
        all_classes: Also give the probabilities of all classes; without, they have no row.

    Yields:
        Blocks of rows, in order.
    """
    height, width = scene.grid.height, scene.grid.width
    in_turn = Lock()  # GDAL's files are for one thread at a time

    def read(*window: int) -> NDArray[np.uint8]:
        with in_turn:
            return scene.read(*window)

    def is_empty(*window: int) -> bool:
        with in_turn:
            return scene.is_empty(*window)

    blocks = predict_windows(
        read,
        height,
        width,
        predict,
        len(card.classes),
        size=card.tile,
        stride=options.pixels(card.tile),
        batch=options.batch,
        first_row=first_row,
        stop_row=stop_row,
        is_empty=is_empty,
    )
    for block in blocks:
        values = torch.from_numpy(block.probabilities)
        best, index = values.max(dim=0)
        if card.temperature is not None:
            # The class is that of the network: calibrated values may tie by rounding.
            values = with_temperature(values, card.temperature)
            best = values.gather(0, index[None])[0]
        with in_turn:
            empty = ~scene.valid(block.row, 0, values.shape[1], width)
        classes = index.to(torch.uint8).numpy()
        parts = [classes, _bytes(best), _bytes(values if all_classes else values[:0])]
        for part in parts:
            part[..., empty] = IGNORE
        yield PredictedRows(block.row, *parts)


def _bytes(probabilities: torch.Tensor) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] = (probabilities * SURE).round_().to(torch.uint8).numpy()
    return result
