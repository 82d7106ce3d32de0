"""Sliding-window prediction of a scene of any size, blended without seams; memory holds one band of rows."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.geo.prefetch import prefetch

ReadWindow = Callable[[int, int, int, int], NDArray[np.uint8]]
"""`read(row, column, height, width)` -> (height, width, bands) uint8, all inside the scene."""

PredictBatch = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""`predict((B, H, W, bands) uint8)` -> (B, C, H, W) float32 probabilities."""


ROWS: Final = 64
"""Rows per yielded block: with a float for each class, the rows of a wide scene take much memory."""

IsEmpty = Callable[[int, int, int, int], bool]
"""`is_empty(row, column, height, width)` -> whether nothing was measured in that window."""


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Finished rows of a scene.

    Attributes:
        row: The block's first row in the scene.
        probabilities: (C, h, W) float32, W the scene's width.
    """

    row: int
    probabilities: NDArray[np.float32]


def window_starts(length: int, size: int, stride: int) -> list[int]:
    """Where windows start along one axis so that they cover it; the last is shifted back to the edge.

    Args:
        length: Pixels along the axis.
        size: Window size in pixels.
        stride: Pixels from one start to the next; more than `size` leaves gaps.

    Returns:
        Ascending starts; `[0]` where the axis is no longer than a window.

    Raises:
        ValueError: `length` or `stride` is not positive.
    """
    if length < 1:
        raise ValueError(f"length is {length}, must be at least 1")
    if stride < 1:
        raise ValueError(f"stride is {stride}, must be at least 1")
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def window_stride(size: int, fraction: float) -> int:
    """Pixels from one window to the next, at least 1, from a fraction of the window's side."""
    return max(1, int(size * fraction))


def rows_of_part(height: int, size: int, stride: int, part: int, parts: int) -> range:
    """The rows of a scene that one of several processes predicts; together they cover each row once.

    Args:
        height: Rows of the scene.
        size: Side of a window in pixels.
        stride: Pixels from one window to the next.
        part: Index of the process, from 0.
        parts: Number of processes; where it exceeds the rows of windows, some get no rows.
    """
    starts = window_starts(height, size, stride)
    bounds = [*(starts[len(starts) * number // parts] for number in range(parts)), height]
    return range(bounds[part], bounds[part + 1])


def blending_window(size: int) -> NDArray[np.float32]:
    """Raised cosine in two dimensions: a pixel counts most where its window sees context on all sides.

    Args:
        size: Window size in pixels.

    Returns:
        (size, size) float32 in (0, 1]; positive at the border, where a scene's edge has no other window.
    """
    floor = 1e-3
    profile = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2 * (1 - floor) + floor
    return np.outer(profile, profile).astype(np.float32)


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
    is_empty: IsEmpty | None = None,
) -> Iterator[RowBlock]:
    """Predicts a scene window by window, top to bottom.

    Where windows overlap, the result is the mean of their probabilities weighted by `blending_window`.
    Rows are yielded as soon as no later window reaches them, so that at most `size` rows of the scene are
    in memory. A scene smaller than a window is padded by reflection and cropped.

    Args:
        read: Reads a window of the scene. A thread calls it and `is_empty` ahead of `predict`.
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
        is_empty: Windows for which it is true are not predicted.

    Yields:
        Blocks of at most `ROWS` rows, in order and without gaps or overlaps; probabilities are 0 where every
        window was empty.

    Raises:
        ValueError: Height, width or stride is out of range, or `predict` returns a wrong shape.
    """
    if stride > size:
        raise ValueError(f"stride is {stride}, must be within 1..{size} (the window size)")
    rows, columns = window_starts(height, size, stride), window_starts(width, size, stride)
    weight = blending_window(size)
    band = np.zeros((num_classes, size, max(width, size)), dtype=np.float32)
    weights = np.zeros(band.shape[1:], dtype=np.float32)
    last = height if stop_row is None else stop_row
    spans = [(row, end) for row, end in zip(rows, [*rows[1:], height], strict=True) if row < last]
    spans = [(row, end) for row, end in spans if row + size > first_row]

    def batches() -> Iterator[_Batch | None]:
        for row, _ in spans:
            nonempty = [
                column
                for column in columns
                if is_empty is None or not is_empty(row, column, min(size, height), min(size, width))
            ]
            for first in range(0, len(nonempty), batch):
                chunk = nonempty[first : first + batch]
                windows = [_read_padded(read, row, column, (height, width), size) for column in chunk]
                yield _Batch(chunk, np.stack(windows))
            yield None  # end of a row of windows

    with closing(prefetch(batches())) as prefetched:
        for row, following in spans:
            while (part := next(prefetched)) is not None:
                shape = (len(part.columns), num_classes, size, size)
                for column, values in zip(part.columns, _checked(predict(part.windows), shape), strict=True):
                    band[:, :, column : column + size] += values * weight
                    weights[:, column : column + size] += weight
            for first in range(max(row, first_row), following, ROWS):
                block = slice(first - row, min(first + ROWS, following) - row)
                # Avoids 0 / 0 where every window was empty.
                total = np.maximum(weights[block, :width], np.finfo(np.float32).tiny)
                yield RowBlock(first, np.divide(band[:, block, :width], total, dtype=np.float32))
            for plane in (*band, weights):
                _shift_up(plane, following - row)


class _Batch(NamedTuple):
    """Windows at the same row that are predicted together: their columns, and (B, H, W, bands) uint8."""

    columns: list[int]
    windows: NDArray[np.uint8]


def _checked(probabilities: NDArray[np.float32], expected: tuple[int, ...]) -> NDArray[np.float32]:
    if probabilities.shape != expected:
        raise ValueError(f"predict gave shape {probabilities.shape}, expected {expected}")
    return probabilities


def _read_padded(
    read: ReadWindow, row: int, column: int, scene: tuple[int, int], size: int
) -> NDArray[np.uint8]:
    pixels = read(row, column, min(size, scene[0]), min(size, scene[1]))
    missing = size - pixels.shape[0], size - pixels.shape[1]
    return (
        np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect") if any(missing) else pixels
    )


def _shift_up(band: NDArray[np.float32], rows: int) -> None:
    """Moves the rows of a plane up in place and zeroes the rows below."""
    kept = len(band) - rows
    if kept > 0:
        band[:kept] = band[rows:]  # numpy copies first where the two overlap
    band[max(kept, 0) :] = 0
