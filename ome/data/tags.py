"""Image-level tags of many tiles."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.data.names import SEPARATORS, SHOWS_NONE, TOO_SMALL, WINDOW_COLUMNS
from ome.data.scene_index import SPLITS
from ome.data.tag_rows import TagRows, read_tag_rows
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import write_csv


@dataclass(frozen=True)
class TagTable:
    """Tags of many tiles.

    Attributes:
        names: Class names, in index order.
        tiles: The N tiles.
        tags: (N, C) uint8, 0 or 1.
        splits: Split of each tile's scene.
        kept: (N,) bool, whether the tile is used to train the classifier.
        too_small: (N, C) bool, classes of a tile that are too small to learn from; None if there are none.
        shows_none: (N,) bool, tiles that are known to show none of the classes; None if there are none.
    """

    names: tuple[str, ...]
    tiles: tuple[Tile, ...]
    tags: NDArray[np.uint8]
    splits: tuple[str, ...]
    kept: NDArray[np.bool_]
    too_small: NDArray[np.bool_] | None = None
    shows_none: NDArray[np.bool_] | None = None

    @property
    def decided(self) -> NDArray[np.bool_]:
        """(N,), whether it is known which classes the tile shows."""
        tagged: NDArray[np.bool_] = np.asarray(self.tags.any(axis=1))
        return tagged if self.shows_none is None else tagged | self.shows_none

    @property
    def learnt(self) -> NDArray[np.bool_]:
        """(N, C), whether the classifier learns from the tile that the class is in it, or is not."""
        return np.ones(self.tags.shape, dtype=bool) if self.too_small is None else ~self.too_small

    @cached_property
    def by_name(self) -> dict[str, NDArray[np.uint8]]:
        """The tags (C,) of each tile, by the tile's name."""
        return {tile.name: tags for tile, tags in zip(self.tiles, self.tags, strict=True)}

    def select(
        self, split: str, *, kept: bool = False, tagged: bool = False, decided: bool = False
    ) -> "TagTable":
        """The part of the table that belongs to a split.

        Args:
            split: `train`, `val` or `test`.
            kept: Only tiles that train the classifier.
            tagged: Only tiles with at least one tag; the others can be neither learnt nor mapped.
            decided: Only tiles with at least one tag, or that show none of the classes: predicted tags of
                the others cannot be scored.
        """
        chosen = np.array([name == split for name in self.splits], dtype=bool)
        if kept:
            chosen &= self.kept
        if tagged:
            chosen &= self.tags.any(axis=1)
        if decided:
            chosen &= self.decided
        return self.take(chosen)

    def take(self, chosen: NDArray[np.bool_]) -> "TagTable":
        """The part of the table where `chosen`, (N,), is true."""
        rows = np.flatnonzero(chosen).tolist()
        return TagTable(
            self.names,
            tuple(self.tiles[row] for row in rows),
            self.tags[rows],
            tuple(self.splits[row] for row in rows),
            self.kept[rows],
            None if self.too_small is None else self.too_small[rows],
            None if self.shows_none is None else self.shows_none[rows],
        )

    def validation(self) -> "TagTable":
        """The decided tiles of `val`, or of `train` if none of `val` has a tag."""
        of_val = self.select("val", decided=True)
        return of_val if of_val.tags.any() else self.select("train", decided=True)

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
        optional: dict[str, list[Any]] = {}
        if self.too_small is not None:
            small = (SEPARATORS[0].join(compress(self.names, row)) for row in self.too_small.tolist())
            optional[TOO_SMALL] = [*small]
        if self.shows_none is not None:
            optional[SHOWS_NONE] = self.shows_none.astype(int).tolist()
        rows = zip(self.tiles, self.splits, self.kept.tolist(), self.tags.tolist(), strict=True)
        lines = (
            [t.name, *astuple(t), split, int(kept), *(cells[row] for cells in optional.values()), *tags]
            for row, (t, split, kept, tags) in enumerate(rows)
        )
        write_csv(path, [*WINDOW_COLUMNS, *optional, *self.names], lines)

    @classmethod
    def read(cls, path: Path, names: Sequence[str]) -> "TagTable":
        """Reads a table, written by ome or by hand.

        Args:
            path: A CSV file or `.xlsx` workbook with the columns scene, row, column, height, width, split and
                one for each class; `tile`, `kept` (every tile is then kept), `too_small` and `shows_none` are
                optional.
            names: Class names, in index order.

        Raises:
            UserError: When a column is missing or unknown, a value is not of its kind, a kept tile has no
                tag that is large enough, or a tile occurs twice; the message names file and line.
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
            if row.kept is not False and row.tags == row.too_small:
                raise UserError(
                    f"{where}: all tags of tile {row.tile and row.tile.name} are too small to learn from: "
                    f"write 0 into kept, or remove one from {TOO_SMALL}"
                )
        tags = [[name in row.tags for name in table.names] for row in table.rows]
        small = [[name in row.too_small for name in table.names] for row in table.rows]
        return cls(
            names=table.names,
            tiles=tuple(row.tile for row in table.rows if row.tile),
            tags=np.asarray(tags, dtype=np.uint8).reshape(len(table.rows), len(table.names)),
            splits=tuple(row.split for row in table.rows),
            kept=np.asarray([row.kept is not False for row in table.rows], dtype=bool),
            too_small=np.asarray(small, dtype=bool) if TOO_SMALL in table.header else None,
            shows_none=(
                np.array([row.shows_none for row in table.rows]) if SHOWS_NONE in table.header else None
            ),
        )
