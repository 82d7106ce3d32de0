"""A scene of any size -> rows of classes, confidence and probabilities."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import chain, pairwise
from threading import Lock
from typing import Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.data.byte_image import ByteImage
from ome.extras import require
from ome.geo.sliding import PredictBatch, RowBlock, predict_windows
from ome.geo.windows import window_stride
from ome.ignore import IGNORE
from ome.inference.card import SegmenterCard
from ome.inference.outputs import not_finite
from ome.scoring.temperature import with_temperature

PROBABILITY_ONE: Final = 254
"""Byte that stands for a probability of 1; 255 is nodata."""


WINDOWS: Final = 8
"""Number of windows in one forward pass on a CPU."""

GPU_PIXELS: Final = 1 << 22
"""Number of pixels in one forward pass on a GPU: 64 windows of 256 x 256 keep it busy."""


def windows_at_a_time(batch: int | None, tile: int, device: torch.device) -> int:
    """The number of windows in one forward pass.

    Args:
        batch: `prediction.batch`; None for the default of the device.
        tile: Side of a window in pixels.
        device: Device of the network.
    """
    return batch or (WINDOWS if device.type == "cpu" else max(1, GPU_PIXELS // tile**2))


@dataclass(frozen=True)
class MapOptions:
    """Outputs beside the class map of a scene, and the layout of its windows.

    Attributes:
        confidence: The probability of the class on the map.
        probabilities: The probability of every class.
        polygons: A GeoPackage of the map's regions.
        simplify: Pixels by which outlines may move to become simpler.
        stride: Distance of neighbouring windows, as a fraction of a window's side.
        batch: Windows in one forward pass, see `windows_at_a_time`.
    """

    confidence: bool = False
    probabilities: bool = False
    polygons: bool = False
    simplify: float = 1.0
    stride: float = 0.625
    batch: int = WINDOWS

    def check(self) -> None:
        """Checks that the packages for polygons are installed, if they are needed.

        Raises:
            UserError: One is missing.
        """
        if self.polygons:
            require("vector", "stage.predict.polygons=true")


class PredictedRows(NamedTuple):
    """Rows of a map.

    Attributes:
        row: Index of the first row.
        classes: (h, W) uint8 class indices, 255 for pixels without data.
        confidence: (h, W) uint8, 0..254 for probabilities from 0 to 1, 255 for pixels without data.
        probabilities: (C, h, W) uint8, encoded like `confidence`.
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
        card: The card of the segmenter.
        predict: The segmenter.
        options: Stride and batch of the windows.
        first_row: First row to predict.
        stop_row: Row after the last one to predict, see `rows_of_part`; None for all rows.
        all_classes: Whether to return `probabilities`; otherwise they have C = 0.

    Yields:
        Blocks of rows, in order.
    """
    in_turn = Lock()  # a GDAL dataset may be used by one thread at a time

    def read(*window: int) -> NDArray[np.uint8]:
        with in_turn:
            return scene.read(*window)

    def valid(*window: int) -> NDArray[np.bool_]:
        with in_turn:
            return scene.valid(*window)

    blocks = predict_windows(
        read,
        scene.grid.height,
        scene.grid.width,
        predict,
        len(card.classes),
        size=card.tile,
        stride=window_stride(card.tile, options.stride),
        batch=options.batch,
        first_row=first_row,
        stop_row=stop_row,
        valid=None if scene.all_valid else valid,
    )
    started = (_Waiting.of(block, card.temperature, all_classes=all_classes) for block in blocks)
    for waiting, _ in pairwise(chain(started, [None])):  # rows are fetched while a GPU computes the next ones
        if waiting is not None:
            yield waiting.fetched()


class _Waiting(NamedTuple):
    """Rows that a GPU may still be computing.

    Attributes:
        block: The rows.
        parts: Classes, confidence and probabilities as in `PredictedRows`, also of pixels without data, and
            whether a probability is nan.
        done: Event after the copy to the host; None on a CPU.
    """

    block: RowBlock
    parts: tuple[Tensor, Tensor, Tensor, Tensor]
    done: torch.cuda.Event | None

    @classmethod
    def of(cls, block: RowBlock, temperature: float | None, *, all_classes: bool) -> Self:
        """Starts the last steps of a block of rows."""
        best, index = (values := block.probabilities).max(dim=0)
        is_nan = best.isnan().any()
        if temperature is not None:
            # The class is computed before the calibration, which may round two values to the same.
            values = with_temperature(values, temperature)
            best = values.gather(0, index[None])[0]
        probabilities = _bytes(values if all_classes else values[:0])
        parts = index.to(torch.uint8), _bytes(best), probabilities, is_nan
        if not values.is_cuda:
            return cls(block, parts, None)
        first, second, third, fourth = map(_to_host, parts)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(values.device))
        return cls(block, (first, second, third, fourth), done)

    def fetched(self) -> PredictedRows:
        """The rows, once they are on the host.

        Raises:
            UserError: A probability is nan.
        """
        if self.done is not None:
            self.done.synchronize()
        *parts, is_nan = (part.numpy() for part in self.parts)
        if is_nan:
            raise not_finite("the probabilities of the segmenter")
        if self.block.valid is not None:
            for part in parts:
                part[..., ~self.block.valid] = IGNORE
        return PredictedRows(self.block.row, *parts)


def _to_host(part: Tensor) -> Tensor:
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)


def _bytes(probabilities: Tensor) -> Tensor:
    return (probabilities * PROBABILITY_ONE).round_().to(torch.uint8)
