"""Image-level tags of tiles, and the filter for tiles that are clear enough to train the classifier."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.data.scene_index import SPLITS
from ome.data.tag_rows import WINDOW_COLUMNS, TagRows, read_tag_rows
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import write_csv


def coverage(mask: NDArray[np.uint8], num_classes: int) -> NDArray[np.float64]:
    """Fraction of a tile that each class covers.

    Args:
        mask: (H, W) uint8, class index, or an index >= C (255) for ignored pixels.
        num_classes: Number of classes C.

    Returns:
        (C,) float64 in [0, 1]. The denominator is all H W pixels, including ignored ones: otherwise a sliver
        of a class in a tile full of clutter would count as clearly visible.
    """
    counts = np.bincount(mask.ravel(), minlength=256)[:num_classes]
    return counts.astype(np.float64) / mask.size


def tags_of(mask: NDArray[np.uint8], num_classes: int) -> NDArray[np.uint8]:
    """Image-level tags of a tile: (C,) uint8, 1 iff at least one pixel is of the class."""
    return (coverage(mask, num_classes) > 0).astype(np.uint8)


def minimum_coverage(
    names: Sequence[str], minimum: float, overrides: Mapping[str, float]
) -> NDArray[np.float64]:
    """Least coverage that each class must have where it is present.

    Args:
        names: Class names, in index order.
        minimum: Default for classes without an override, e.g. 0.1.
        overrides: Values by class name, e.g. 0.025 for cars.

    Returns:
        (C,) float64 in [0, 1].

    Raises:
        UserError: When an override names no class, or a value is outside [0, 1].
    """
    if unknown := sorted(set(overrides) - set(names)):
        raise UserError(
            f"dataset.filter.overrides: {unknown[0]} is not a class; the classes are {', '.join(names)}"
        )
    values = [float(overrides.get(name, minimum)) for name in names]
    for name, value in zip(names, values, strict=True):
        if not 0 <= value <= 1:
            raise UserError(f"dataset.filter: {value} for {name} is not a fraction of a tile; give 0 to 1")
    return np.asarray(values)


class Filtered(NamedTuple):
    """Outcome of the filter over N tiles.

    Attributes:
        kept: (N,) bool.
        dropped: (C,) int64, tiles in which the class is present but too small; a tile with several such
            classes counts for each of them.
        empty: Tiles in which no class is present at all; they are dropped as well.
    """

    kept: NDArray[np.bool_]
    dropped: NDArray[np.int64]
    empty: int


def filter_tiles(covered: NDArray[np.float64], minimum: NDArray[np.float64]) -> Filtered:
    """Keeps the tiles in which every present class is clearly visible.

    Args:
        covered: (N, C) float64, coverage of each class in each tile.
        minimum: (C,) float64; a present class below it drops its tile.
    """
    present = covered > 0
    too_small = present & (covered < minimum)
    empty = ~present.any(axis=1)
    kept = np.logical_not(too_small.any(axis=1) | empty)
    return Filtered(kept, too_small.sum(axis=0), int(empty.sum()))


@dataclass(frozen=True)
class TagTable:
    """Tags of many tiles.

    Attributes:
        names: Class names, in index order.
        tiles: The N tiles.
        tags: (N, C) uint8, 0 or 1.
        splits: Split of each tile's scene.
        kept: (N,) bool, whether the tile is used to train the classifier.
    """

    names: tuple[str, ...]
    tiles: tuple[Tile, ...]
    tags: NDArray[np.uint8]
    splits: tuple[str, ...]
    kept: NDArray[np.bool_]

    @cached_property
    def by_name(self) -> dict[str, NDArray[np.uint8]]:
        """The tags (C,) of each tile, by the tile's name."""
        return {tile.name: tags for tile, tags in zip(self.tiles, self.tags, strict=True)}

    def select(self, split: str, *, kept: bool = False, tagged: bool = False) -> "TagTable":
        """The part of the table that belongs to a split.

        Args:
            split: `train`, `val` or `test`.
            kept: Only tiles that train the classifier.
            tagged: Only tiles with at least one tag; the others can be neither learnt nor mapped.
        """
        chosen = np.array([name == split for name in self.splits], dtype=bool)
        if kept:
            chosen &= self.kept
        if tagged:
            chosen &= self.tags.any(axis=1)
        return self.take(chosen)

    def without_scenes(self, scenes: Collection[str]) -> "TagTable":
        """The table without the tiles of some scenes."""
        return self.take(np.array([tile.scene not in scenes for tile in self.tiles], dtype=bool))

    def take(self, chosen: NDArray[np.bool_]) -> "TagTable":
        """The part of the table where `chosen`, (N,), is true."""
        rows = np.flatnonzero(chosen).tolist()
        return TagTable(
            self.names,
            tuple(self.tiles[row] for row in rows),
            self.tags[rows],
            tuple(self.splits[row] for row in rows),
            self.kept[rows],
        )

    def shared_pixels(self) -> list[tuple[Tile, Tile]]:
        """Pairs of a training tile and an overlapping tile of another split."""
        scenes: dict[str, list[int]] = {}
        for row, tile in enumerate(self.tiles):
            scenes.setdefault(tile.scene, []).append(row)
        pairs: list[tuple[Tile, Tile]] = []
        for rows in scenes.values():
            others = [self.tiles[row] for row in rows if self.splits[row] != "train"]
            if not others:
                continue
            top, left, height, width = np.array([astuple(other)[1:] for other in others]).T
            for tile in (self.tiles[row] for row in rows if self.splits[row] == "train"):
                below = (top < tile.row + tile.height) & (tile.row < top + height)
                beside = (left < tile.column + tile.width) & (tile.column < left + width)
                pairs += [(tile, others[place]) for place in np.flatnonzero(below & beside).tolist()]
        return pairs

    def write(self, path: Path) -> None:
        """Writes the table as CSV, atomically."""
        rows = zip(self.tiles, self.splits, self.kept, self.tags, strict=True)
        write_csv(path, [*WINDOW_COLUMNS, *self.names], (self._row(*row) for row in rows))

    @staticmethod
    def _row(tile: Tile, split: str, kept: np.bool_, tags: Iterable[np.uint8]) -> list[object]:
        window = [tile.row, tile.column, tile.height, tile.width]
        return [tile.name, tile.scene, *window, split, int(kept), *(int(tag) for tag in tags)]

    @classmethod
    def read(cls, path: Path, names: Sequence[str]) -> "TagTable":
        """Reads a table, written by ome or by hand.

        Args:
            path: A CSV file or `.xlsx` workbook with the columns scene, row, column, height, width, split and
                one for each class; `tile` and `kept` are optional (every tile is then kept).
            names: Class names, in index order.

        Raises:
            UserError: When a column is missing or unknown, a value is not of its kind, a kept tile has no
                tag, or a tile occurs twice; the message names file and line.
        """
        table = read_tag_rows(path, names)
        if table.form != "windows":
            raise UserError(f"{path}, line 1: no column scene; is it a table of windows?")
        if not table.rows:
            raise UserError(f"{path} has no tiles")
        return cls.from_rows(path, table)

    @classmethod
    def from_rows(cls, path: Path, table: TagRows) -> "TagTable":
        """Builds the table from parsed rows of windows; errors as for `read`."""
        for row in table.rows:
            where = f"{path}, line {row.line}"
            if not row.split:
                raise UserError(f"{where}: split is ''; give one of {', '.join(SPLITS)}")
            if row.kept is not False and not row.tags:
                raise UserError(
                    f"{where}: tile {row.tile and row.tile.name} has no tag; give it one, or delete the row"
                )
        tags = [[name in row.tags for name in table.names] for row in table.rows]
        return cls(
            names=table.names,
            tiles=tuple(row.tile for row in table.rows if row.tile),
            tags=np.asarray(tags, dtype=np.uint8).reshape(len(table.rows), len(table.names)),
            splits=tuple(row.split for row in table.rows),
            kept=np.asarray([row.kept is not False for row in table.rows], dtype=bool),
        )
