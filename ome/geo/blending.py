"""Blends windows that overlap, on the device of their probabilities."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def blending_window(size: int) -> NDArray[np.float32]:
    """Raised cosine in two dimensions: a pixel counts most where its window sees context on all sides.

    Returns:
        (size, size) float32 in (0, 1]; positive at the border, where a scene's edge has no other window.
    """
    floor = 1e-3
    profile = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2 * (1 - floor) + floor
    return np.outer(profile, profile).astype(np.float32)


class BlendedRows:
    """The sums of the windows that overlap a band of rows, on the device of the predictions.

    Args:
        num_classes: C.
        size: Rows of the band, the side of a window.
        width: Columns of the band.
    """

    def __init__(self, num_classes: int, size: int, width: int) -> None:
        self._size = size
        self._weight = torch.from_numpy(blending_window(size))
        self._band = torch.zeros(num_classes, size, width)
        self._weights = torch.zeros(size, width)

    def add(self, columns: list[int], probabilities: Tensor) -> None:
        """Adds the (B, C, size, size) probabilities of windows."""
        if self._band.device != probabilities.device:  # at the first windows: all sums are 0
            self._weight, self._band, self._weights = (
                part.to(probabilities.device) for part in (self._weight, self._band, self._weights)
            )
        for column, weighted in zip(columns, probabilities * self._weight, strict=True):
            self._band[:, :, column : column + self._size] += weighted
            self._weights[:, column : column + self._size] += self._weight

    def mean(self, rows: slice, width: int) -> Tensor:
        """The weighted mean of some rows, (C, h, width); 0 where there was no window."""
        total = self._weights[rows, :width].clamp(min=torch.finfo(torch.float32).tiny)
        return self._band[:, rows, :width] / total

    def shift_up(self, rows: int) -> None:
        """Moves the rows of the band up and zeroes the rows below."""
        kept = self._size - rows
        for plane in (*self._band, self._weights):  # one at a time: a copy of all would double the memory
            if kept > 0:
                plane[:kept] = plane[rows:].clone()
            plane[max(kept, 0) :] = 0
