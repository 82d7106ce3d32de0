"""Arrays of golden files, and how `check_golden.py` compares computed ones with them."""

import zlib
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


class Check(NamedTuple):
    """A compared quantity with its largest error and the tolerance."""

    quantity: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance, and not nan."""
        return bool(self.error <= self.tolerance)


class Arrays:
    """The arrays of one file; `unread` has the names of those that no check has read."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.arrays = arrays
        self.unread = set(arrays)

    def __getitem__(self, name: str) -> Array:
        """Returns an array; raises KeyError if it does not exist."""
        if name not in self.arrays:
            raise KeyError(f"the file has no array {name!r}")
        self.unread.discard(name)
        return self.arrays[name]

    def tensor(self, name: str) -> Tensor:
        """Returns an array as a tensor."""
        return torch.from_numpy(self[name])


def _same_shape(computed: Array, golden: Array) -> None:
    if computed.shape != golden.shape:
        raise ValueError(f"the file has shape {golden.shape}, computed is {computed.shape}")


def worst(quantity: str, computed: Any, golden: Array, tolerance: float) -> Check:  # noqa: ANN401 - numbers or arrays
    """Compares by the largest absolute difference; nan matches nan only."""
    values = np.asarray(computed, dtype=np.float64)
    _same_shape(values, golden)
    both_nan = np.isnan(values) & np.isnan(golden)
    difference = np.where(both_nan, 0.0, np.abs(values - golden))
    return Check(quantity, float(difference.max(initial=0.0)), tolerance)


def disagreement(quantity: str, computed: Array, golden: Array, tolerance: float) -> Check:
    """Compares by the fraction of elements that differ."""
    _same_shape(computed, golden)
    return Check(quantity, float((computed != golden).mean()), tolerance)


@lru_cache(maxsize=256)  # networks of other class counts share all but one tensor
def rule_weights(name: str, shape: torch.Size, seed: int) -> Tensor:
    """A deterministic tensor in place of trained weights: a sine whose phase depends on the name."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    count = shape.numel()
    phase = zlib.crc32(name.encode()) % 100003 + seed
    wave = np.sin(12.9898 * np.arange(1, count + 1, dtype=np.float64) + 78.233 * phase)
    if len(shape) > 1:
        wave *= np.sqrt(2 / shape[1:].numel())
    elif name.endswith(("running_var", "weight")):
        wave = 1 + 0.2 * wave
    else:
        wave *= 0.1
    return torch.from_numpy(wave.astype(np.float32).reshape(shape))
