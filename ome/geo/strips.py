"""Windows of a raster: strips from top to bottom, and a sample of its pixels."""

from collections.abc import Iterator
from typing import Final

from ome.geo.grid import Grid

STRIP: Final = 1024
"""Rows per strip: a multiple of all common block heights; 18 MB of a scene 6000 pixels wide."""

MAX_VALUES: Final = 1 << 28
"""Largest number of values per strip."""

Strip = tuple[int, int, int, int]
"""Row, column, height and width of a window."""


def strips_of(grid: Grid, bands: int) -> Iterator[Strip]:
    """Windows of `STRIP` rows, or fewer where the raster is wide."""
    rows = max(1, min(STRIP, MAX_VALUES // (grid.width * bands)))
    for row in range(0, grid.height, rows):
        yield row, 0, min(rows, grid.height - row), grid.width


def sample_of(grid: Grid) -> list[Strip]:
    """Nine windows of up to 256 x 256 pixels, evenly distributed; fewer of a small raster."""
    height, width = min(256, grid.height), min(256, grid.width)
    starts = [
        (part * (grid.height - height) // 2, across * (grid.width - width) // 2)
        for part in range(3)
        for across in range(3)
    ]
    return [(*start, height, width) for start in dict.fromkeys(starts)]
