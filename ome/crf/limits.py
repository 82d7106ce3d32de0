"""Limits of the CRF's constants, without libraries: every command checks its settings."""

from typing import Final

DEVIATIONS: Final = (0.1, 1e6)
"""Smallest and largest standard deviation: beyond them, a kernel is a point or constant."""

LARGEST_WEIGHT: Final = 1e6
"""Largest weight of a kernel."""
