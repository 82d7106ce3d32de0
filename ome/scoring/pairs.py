"""Paired comparison of the scores of two settings over the same seeds."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """Difference of the scores of two settings over the seeds that both have.

    Attributes:
        mean: Mean of the differences.
        low: Lower end of the mean's 95 % confidence interval (Student's t).
        high: Its upper end.
        p: Two-sided p-value of the paired t-test, not corrected for other comparisons; nan where all
            differences are equal.
        seeds: Number of seeds.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int

    def cells(self) -> list[str]:
        """Seeds, mean and interval in percent, and p, e.g. `3`, `+2.50`, `-0.10`, `+5.10`, `0.054`."""
        points = [f"{100 * value:+.2f}" for value in (self.mean, self.low, self.high)]
        return [str(self.seeds), *points, "-" if np.isnan(self.p) else f"{self.p:.3f}"]


def paired_difference(
    first: Mapping[Hashable, float], second: Mapping[Hashable, float]
) -> PairedDifference | None:
    """Compares the scores of two settings by a paired t-test.

    Args:
        first: Scores in [0, 1] of the baseline by seed.
        second: Scores in [0, 1] of the other setting by seed.

    Returns:
        Second minus first; None if fewer than two seeds have a defined score for both.
    """
    pairs = np.array([(first[seed], second[seed]) for seed in first if seed in second]).reshape(-1, 2)
    differences = np.diff(pairs[~np.isnan(pairs).any(axis=1)], axis=1)[:, 0]
    if len(differences) < 2:
        return None
    mean = float(differences.mean())
    error, freedom = float(differences.std(ddof=1)) / len(differences) ** 0.5, len(differences) - 1
    half = error * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    p = 2 * float(stdtr(freedom, -abs(mean) / error)) if error > np.finfo(float).eps else float("nan")
    return PairedDifference(mean, mean - half, mean + half, p, len(differences))
