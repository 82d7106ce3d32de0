"""Tiles, the windows into scenes: five values each, never a clipped copy."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeVar

from ome.errors import UserError
from ome.geo.windows import window_starts

T = TypeVar("T")

COUNTED: Final = 1 << 22
"""Largest number of pixels that are counted or drawn at a time; counting takes some 30 bytes for each."""


@dataclass(frozen=True, order=True)
class Tile:
    """A window into a scene.

    Attributes:
        scene: Name of the scene.
        row: First row, in pixels from the scene's upper edge.
        column: First column, in pixels from the scene's left edge.
        height: Rows.
        width: Columns.
    """

    scene: str
    row: int
    column: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """A file name without suffix, unique within a dataset for one tile size."""
        return f"{self.scene}_{self.row:05d}_{self.column:05d}"

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Row, column, height and width, as `Raster.read` takes them."""
        return self.row, self.column, self.height, self.width

    def strips(self) -> Iterator["Tile"]:
        """The tile from top to bottom in parts of its width, for tiles of any size, such as whole scenes."""
        rows = max(1, COUNTED // self.width)
        for row in range(0, self.height, rows):
            yield replace(self, row=self.row + row, height=min(rows, self.height - row))


def tile_scene(
    scene: str, height: int, width: int, size: int, stride: int, *, cover: bool = True
) -> list[Tile]:
    """Lays square windows over a scene, row by row.

    Args:
        scene: Name of the scene.
        height: Rows of the scene.
        width: Columns of the scene.
        size: Side of a tile in pixels. A tile of a smaller scene has the scene's size.
        stride: Pixels from one tile to the next; smaller than `size` for overlap, larger for gaps.
        cover: Whether the last row and column of tiles are shifted inwards to end at the scene's edge.
            Without it the rest at the lower and right edges is dropped, as is a scene smaller than a tile.

    Returns:
        The tiles, sorted by row, then column.

    Raises:
        UserError: When size or stride is not positive.
    """
    if size < 1 or stride < 1:
        raise UserError(f"dataset.tile: size {size} and stride {stride} must both be at least 1 pixel")
    rows = _offsets(height, size, stride, cover=cover)
    columns = _offsets(width, size, stride, cover=cover)
    return [
        Tile(scene, row, column, min(size, height), min(size, width)) for row in rows for column in columns
    ]


def _offsets(length: int, size: int, stride: int, *, cover: bool) -> list[int]:
    """First pixels of the windows along one axis."""
    return window_starts(length, size, stride) if cover else list(range(0, length - size + 1, stride))


def crop_side(tiles: Sequence[Tile], size: int) -> int:
    """Side of training crops: `size` pixels, or fewer where all tiles are smaller, instead of padding them.

    It is then the largest side of a tile, up to a multiple of 32: encoders halve images five times.
    """
    largest = max(max(tile.height, tile.width) for tile in tiles)
    return min(size, 32 * math.ceil(largest / 32))


PASSES: Final = 10
"""Passes over the tiles of a training whose steps are not set.

After 17, segmenters learn the errors of the pseudo masks (docs/results.md)."""

FEWEST_STEPS: Final = 400
"""Smallest number of steps of such a training, that of `preset=laptop`."""

MOST_STEPS: Final = 20_000
"""Largest number of steps of such a training: that of the published recipe, seven passes over Potsdam."""


CLASSIFIER_STEPS: Final = 300
"""Fewest steps of a classifier whose epochs are not set, if `CLASSIFIER_PASSES` allow it."""

CLASSIFIER_PASSES: Final = (6, 20)
"""Fewest epochs, and most passes over the tiles, of such a classifier."""


def automatic_epochs(tiles: int, batch: int) -> int:
    """Epochs of a classifier whose epochs are not set; each has the steps of `Length.of_epochs`."""
    fewest, passes = CLASSIFIER_PASSES
    steps = max(1, tiles // batch)
    most = math.ceil(passes * max(tiles, batch) / (steps * batch))  # an epoch leaves out part of a batch
    return min(most, max(fewest, math.ceil(CLASSIFIER_STEPS / steps)))


def automatic_steps(tiles: int, batch: int) -> int:
    """Optimiser steps of a training on a number of tiles whose steps are not set."""
    return min(MOST_STEPS, max(FEWEST_STEPS, math.ceil(PASSES * tiles / batch)))


class Length(NamedTuple):
    """Length of a training.

    Attributes:
        epochs: Number of epochs, with a checkpoint after each.
        steps_per_epoch: Optimiser steps per epoch.
    """

    epochs: int
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Total number of optimiser steps."""
        return self.epochs * self.steps_per_epoch

    @classmethod
    def of_epochs(cls, epochs: int, tiles: int, batch: int) -> "Length":
        """Epochs that are passes over a number of tiles."""
        return cls(epochs, max(1, tiles // batch))

    @classmethod
    def of_steps(cls, steps: int, longest: int) -> "Length":
        """At least that many steps, in epochs of equal length, none longer than `longest`."""
        epochs = max(1, math.ceil(steps / longest))
        return cls(epochs, max(1, math.ceil(steps / epochs)))


def batches_of_one_size(tiles: Sequence[Tile], most: Callable[[Tile], int]) -> list[list[int]]:
    """Groups consecutive tiles of one height and width.

    Args:
        tiles: The tiles.
        most: Returns the largest batch for a tile of that size; a batch has at least one tile.

    Returns:
        Indices of the tiles of each batch.
    """
    batches: list[list[int]] = []
    for index, tile in enumerate(tiles):
        first = tiles[batches[-1][0]] if batches else None
        same = first is not None and (first.height, first.width) == (tile.height, tile.width)
        if same and len(batches[-1]) < most(tile):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Chooses `count` evenly spaced items, first and last included; all if there are fewer."""
    number = min(count, len(items))
    return [items[round(place * (len(items) - 1) / max(number - 1, 1))] for place in range(number)]
