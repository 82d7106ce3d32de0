"""Sliding-window prediction of a scene of any size, blended without seams; memory holds one band of rows."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.geo.blending import BlendedRows
from ome.geo.windows import window_starts

T = TypeVar("T")

ReadWindow = Callable[[int, int, int, int], NDArray[np.uint8]]
"""`read(row, column, height, width)` -> (height, width, bands) uint8, all inside the scene."""

PredictBatch = Callable[[NDArray[np.uint8]], Tensor | NDArray[np.float32]]
"""`predict((B, H, W, bands) uint8)` -> (B, C, H, W) float32 probabilities, on any device."""


ROWS: Final = 64
"""Rows per yielded block: with a float for each class, the rows of a wide scene take much memory."""

ReadValid = Callable[[int, int, int, int], NDArray[np.bool_]]
"""`valid(row, column, height, width)` -> (height, width), the valid pixels of a window inside the scene."""


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Finished rows of a scene.

    Attributes:
        row: The block's first row in the scene.
        probabilities: (C, h, W) float32, W the scene's width, on the device of the predictions.
        valid: (h, W), the valid pixels; None where all are.
    """

    row: int
    probabilities: Tensor
    valid: NDArray[np.bool_] | None


def predict_windows(
    read: ReadWindow,
    height: int,
    width: int,
    predict: PredictBatch,
    num_classes: int,
    *,
    size: int,
    stride: int,
    batch: int,
    first_row: int = 0,
    stop_row: int | None = None,
    valid: ReadValid | None = None,
) -> Iterator[RowBlock]:
    """Predicts a scene window by window, top to bottom.

    Where windows overlap, the result is the mean of their probabilities weighted by `blending_window`.
    Rows are yielded as soon as no later window reaches them, so that at most `size` rows of the scene are
    in memory, on the device of the predictions. A scene smaller than a window is padded by reflection and
    cropped.

    Args:
        read: Reads a window of the scene. A thread calls it and `valid` ahead of `predict`.
        height: Rows of the scene.
        width: Columns of the scene.
        predict: Probabilities of a batch of windows; its last batch in each row of windows may be smaller.
        num_classes: C.
        size: Side of the square windows in pixels.
        stride: Pixels from one window to the next, in 1..size.
        batch: Windows predicted together.
        first_row: Where an earlier call stopped: rows above it are not yielded. The other rows are the same
            to the last bit, since every window that reaches them is predicted.
        stop_row: The first row that is not yielded, where a window starts; None for the scene's end.
        valid: Reads which pixels are valid; windows without any are not predicted. None: all are valid.

    Yields:
        Blocks of at most `ROWS` rows, in order and without gaps or overlaps; probabilities are 0 where no
        window had a valid pixel.

    Raises:
        ValueError: Height, width or stride is out of range, or `predict` returns a wrong shape.
    """
    if stride > size:
        raise ValueError(f"stride is {stride}, must be within 1..{size} (the window size)")
    rows, columns = window_starts(height, size, stride), window_starts(width, size, stride)
    last = height if stop_row is None else stop_row
    spans = [(row, end) for row, end in zip(rows, [*rows[1:], height], strict=True) if row < last]
    spans = [(row, end) for row, end in spans if row + size > first_row]
    strips = (_read_strip(read, valid, row, columns, (height, width), size) for row, _ in spans)
    blended = BlendedRows(num_classes, size, max(width, size))
    with closing(prefetched(part for strip in strips for part in strip.batches(batch))) as parts:
        for row, following in spans:
            while isinstance(part := next(parts), _Batch):
                shape = (len(part.columns), num_classes, size, size)
                blended.add(part.columns, _checked(torch.as_tensor(predict(part.windows)), shape))
            for first in range(max(row, first_row), following, ROWS):
                block = slice(first - row, min(first + ROWS, following) - row)
                yield RowBlock(first, blended.mean(block, width), None if part is None else part[block])
            blended.shift_up(following - row)


class _Batch(NamedTuple):
    """Windows at the same row that are predicted together: their columns, and (B, H, W, bands) uint8."""

    columns: list[int]
    windows: NDArray[np.uint8]


class _Strip(NamedTuple):
    """A row of windows.

    Attributes:
        columns: Where the windows start that have a valid pixel.
        first: First column that was read.
        size: Side of a window.
        pixels: (size, w, bands) uint8, padded; without a column where no window has a valid pixel.
        valid: (h, W) the valid pixels of the scene's rows; None where all are.
    """

    columns: list[int]
    first: int
    size: int
    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None

    def batches(self, most: int) -> Iterator["_Batch | NDArray[np.bool_] | None"]:
        """Gives the windows, then the valid pixels as a sign that all were given."""
        for start in range(0, len(self.columns), most):
            chunk = self.columns[start : start + most]
            places = [column - self.first for column in chunk]
            yield _Batch(chunk, np.stack([self.pixels[:, place : place + self.size] for place in places]))
        yield self.valid


def _read_strip(
    read: ReadWindow, valid: ReadValid | None, row: int, columns: list[int], scene: tuple[int, int], size: int
) -> _Strip:
    height, width = min(size, scene[0]), scene[1]
    measured = None if valid is None else valid(row, 0, height, width)
    nonempty = [c for c in columns if measured is None or measured[:, c : c + size].any()]
    first, last = (nonempty[0], min(nonempty[-1] + size, width)) if nonempty else (0, 0)
    pixels = read(row, first, height, last - first) if nonempty else np.zeros((height, 0, 1), np.uint8)
    missing = size - height, max(size - width, 0)
    if nonempty and any(missing):
        pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")
    return _Strip(nonempty, first, size, pixels, measured)


def _checked(probabilities: Tensor, expected: tuple[int, ...]) -> Tensor:
    if probabilities.shape != expected:
        raise ValueError(f"predict gave shape {tuple(probabilities.shape)}, expected {expected}")
    return probabilities


def prefetched(items: Iterator[T]) -> Generator[T]:
    """Yields the items of an iterator, which a thread computes up to two items ahead."""
    end = object()
    with ThreadPoolExecutor(1, "prefetch") as reader:
        waiting = deque(reader.submit(next, items, end) for _ in range(2))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(reader.submit(next, items, end))
            yield item  # type: ignore[misc]  # the sentinel is gone
