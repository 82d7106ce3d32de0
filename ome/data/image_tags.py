"""Tables of tags with one row per image.

Two forms are read: `image,split,road,roof,...` with 0 and 1 for each class, and `image,split,tags` with the
names of the classes separated by `;` or `|`. The column `split` is optional; without it every image trains.
So is `kept`, which distinguishes images without tags: 0 for one that shows none of the classes, empty for one
that was not tagged yet.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.data.scene_index import SPLITS, SceneIndex, SplitName
from ome.data.tag_row import TagRow
from ome.data.tag_rows import TagRows, read_tag_rows
from ome.data.tags import TagTable
from ome.errors import UserError


class Outline(NamedTuple):
    """Classes, images and splits of a table of tags, read without opening any image.

    Attributes:
        names: Class names: the columns of the classes in their order, or the tags sorted by name.
        splits: Split of each image; an image with tiles in several trains if one of them does.
        lines: The first line in which each image occurs.
    """

    names: tuple[str, ...]
    splits: dict[str, SplitName]
    lines: dict[str, int]


def outline(path: Path, names: Sequence[str] = ()) -> Outline:
    """Reads which classes and images a table of tags names.

    Args:
        path: A table of images, or one of tiles as `TagTable.read` takes it; CSV or `.xlsx`.
        names: Class names if known; empty to take them from the table.

    Raises:
        UserError: The table is missing, damaged or of neither kind, or a row is wrong.
    """
    table = read_tag_rows(path, names)
    splits: dict[str, SplitName] = {}
    lines: dict[str, int] = {}
    for row in _checked(path, table):
        splits[row.image] = min(splits.get(row.image, "test"), _split_of(row), key=SPLITS.index)
        lines.setdefault(row.image, row.line)
    return Outline(table.names, splits, lines)


def read_tags(path: Path, index: SceneIndex) -> TagTable:
    """Reads a table of tags of either kind.

    A tag of an image applies to the whole image, so its tile is the whole image, whatever its size.

    Args:
        path: A table of images, or one of tiles as `TagTable.read` takes it; CSV or `.xlsx`.
        index: The prepared scenes, for the sizes and splits of images.

    Raises:
        UserError: The table is missing, damaged or of neither kind, a row is wrong, or an image not a scene.
    """
    names = index.palette.names
    table = read_tag_rows(path, names)
    # Scenes that `prepare` skipped as broken are skipped here too; it has printed a warning.
    rows = [row for row in _checked(path, table) if row.image not in index.broken]
    if table.form == "windows":
        tagged = replace(TagTable.from_rows(path, table), shows_none=_shows_none(table.rows))
        return tagged.take(np.array([tile.scene not in index.broken for tile in tagged.tiles], dtype=bool))
    scenes = index.by_name
    for row in rows:
        has_split = "split" in table.header
        if row.image not in scenes or (has_split and scenes[row.image].split != _split_of(row)):
            state = f"is in the split {scenes[row.image].split}" if row.image in scenes else "does not exist"
            raise UserError(
                f"{path}, line {row.line}: among the prepared scenes {row.image} {state}; correct the row, "
                "or run the same command with stage=prepare"
            )
    chosen = [scenes[row.image] for row in rows]
    tags = np.array([[name in row.tags for name in names] for row in rows], dtype=np.uint8)
    return TagTable(
        names,
        tuple(scene.whole for scene in chosen),
        tags.reshape(len(rows), len(names)),
        tuple(scene.split for scene in chosen),
        np.asarray([bool(row.tags) if row.kept is None else row.kept for row in rows], dtype=bool),
        shows_none=_shows_none(rows),
    )


def _shows_none(rows: Sequence[TagRow]) -> NDArray[np.bool_] | None:
    """The images or windows that a person found to show none of the classes; None if there are none."""
    none = np.array([row.kept is False and not row.tags for row in rows], dtype=bool)
    return none if none.any() else None


def _checked(path: Path, table: TagRows) -> list[TagRow]:
    """The rows, after a check that each has a tag or is excluded from training.

    With a column `kept`, an image without tags and with an empty cell there counts as not tagged yet.
    """
    if table.form == "windows":
        TagTable.from_rows(path, table)
    if not table.rows or not table.names:
        raise UserError(f"{path} has no tags: give each image a row, with at least one class in one of them")
    for row in table.rows:
        undecided = row.kept is None and (_split_of(row) != "train" or "kept" in table.header)
        if not (row.tags or undecided or row.kept is False):
            raise UserError(
                f"{path}, line {row.line}: {row.image} has no tag to train on; give it one, or delete the row"
            )
    return table.rows


def _split_of(row: TagRow) -> SplitName:
    return next((split for split in SPLITS if split == row.split), "train")
