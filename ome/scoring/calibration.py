"""Calibration of weights: the error rate of a mask at each weight."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.ignore import IGNORE
from ome.scoring.scores import ratio
from ome.scoring.tables import percent

LEVELS = 256
RARE: Final = 0.001
"""Fraction of the pixels below which a level has no error rate of its own in charts."""


def error_counts(
    levels: NDArray[np.uint8], mask: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Counts right and wrong pixels of a tile by level; counts of several tiles can be summed.

    Args:
        levels: (H, W) uint8, e.g. the weights of the mask.
        mask: (H, W) class indices or 255.
        reference: (H, W) class indices or 255.

    Returns:
        (256, 2) int64: right and wrong pixels at each level, without pixels of 255 in mask or reference.
    """
    counted = (mask != IGNORE) & (reference != IGNORE)
    wrong = (mask != reference)[counted].astype(np.int64)
    return np.bincount(levels[counted].astype(np.int64) * 2 + wrong, minlength=2 * LEVELS).reshape(LEVELS, 2)


def error_rates(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fraction of wrong pixels at each level, (256,); nan for levels without pixels."""
    return ratio(counts[:, 1], counts.sum(axis=1))


def merged_levels(counts: NDArray[np.int64], most: int = 12) -> dict[str, tuple[int, int]]:
    """Right and wrong pixels of each level that occurs; if there are too many levels, of ranges of levels.

    A level or range with less than `RARE` of the pixels, whose error rate says little, is joined with the
    next one, the last with the one before.

    Args:
        counts: A sum of `error_counts`.
        most: Largest number of levels, or of equal ranges of levels.

    Returns:
        Right and wrong pixels by level (`255`) or range (`213-233`), the lowest first.
    """
    levels = np.flatnonzero(counts.sum(axis=1))
    parts = [[level] for level in levels] if len(levels) <= most else np.array_split(np.arange(LEVELS), most)
    merged: list[list[int]] = []
    joined: list[int] = []
    for part in parts:
        joined = [*joined, *part]
        if counts[joined].sum() >= RARE * counts.sum():
            merged.append(joined)
            joined = []
    if joined:
        merged[-1] += joined
    return {_name(group): tuple(counts[group].sum(axis=0).tolist()) for group in merged}


def _name(levels: Sequence[int]) -> str:
    return f"{levels[0]}-{levels[-1]}" if len(levels) > 1 else str(levels[0])


def calibration_table(criteria: Mapping[str, NDArray[np.int64]]) -> tuple[list[str], list[list[str]]]:
    """Header and one row for each criterion and level that occurs, for `ome.files.write_csv`.

    Args:
        criteria: Sums of `error_counts` by criterion.

    Returns:
        Criterion, level, pixels, their fraction of all pixels and the error rate, both in percent.
    """
    rows = []
    for name, counts in criteria.items():
        pixels, rates = counts.sum(axis=1), error_rates(counts)
        for level in np.flatnonzero(pixels):
            fractions = map(percent, (pixels[level] / pixels.sum(), rates[level]))
            rows.append([name, str(level), str(pixels[level]), *fractions])
    return ["criterion", "level", "pixels", "fraction", "error rate"], rows
