"""Tags of whole images, as a mapping team writes them: one row an image.

Two forms are read: `image,split,road,roof,...` with 0 and 1 for each class, and `image,split,tags` with the
names of the classes separated by `;` or `|`. The column `split` may be left out; every image then trains. So
may `kept`, which says what became of an image without tags: 0 for one that shows none of the classes, nothing
for one that nobody has looked at.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ome.data.archives import image_name
from ome.data.scenes import SPLITS, SceneIndex, SplitName
from ome.data.sheets import Sheet, read_sheet
from ome.data.tags import COLUMNS, TagTable, check_length, zero_or_one
from ome.data.tiles import Tile
from ome.errors import UserError

RESERVED: Final = ("image", "split", "kept", "tags")
"""Columns of a table of images before those of the classes."""


class ImageRow(NamedTuple):
    """One row of a table of images.

    Attributes:
        line: Its line in the file.
        image: Name of the image without its suffix.
        split: `train` where the table does not say.
        kept: Whether the classifier trains on the image if it is in the split `train`.
        tags: Names of the classes in the image; not empty where the classifier trains on it.
    """

    line: int
    image: str
    split: SplitName
    kept: bool
    tags: frozenset[str]


class Outline(NamedTuple):
    """What a table of tags, of either kind, says before any image is looked at.

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
        names: Class names where they are known already; empty to take them from the table.

    Raises:
        UserError: The table is missing, damaged or of neither kind, or a row is wrong.
    """
    sheet = read_sheet(path)
    if "image" in sheet.header:
        classes = tuple(names) or _class_names(sheet)
        rows = _image_rows(sheet, classes)
        return Outline(classes, {row.image: row.split for row in rows}, {row.image: row.line for row in rows})
    if "scene" not in sheet.header:
        raise UserError(
            f"{path}, line 1: no column image; needed are image,tags, or image and a column of 0 and 1 for "
            "each class (columns are separated by commas)"
        )
    classes = tuple(names) or tuple(name for name in sheet.header if name not in COLUMNS)
    table = TagTable.read(path, classes)
    splits: dict[str, SplitName] = {}
    lines: dict[str, int] = {}
    for (line, _), tile, split in zip(sheet.rows, table.tiles, table.splits, strict=True):
        splits[tile.scene] = min(splits.get(tile.scene, "test"), parse_split(split, ""), key=SPLITS.index)
        lines.setdefault(tile.scene, line)
    return Outline(classes, splits, lines)


def read_tags(path: Path, index: SceneIndex) -> TagTable:
    """Reads a table of tags of either kind.

    A tag given to an image belongs to the whole image, so its tile is the whole image, whatever its size.

    Args:
        path: A table of images, or one of tiles as `TagTable.read` takes it; CSV or `.xlsx`.
        index: The prepared scenes, for the sizes and splits of images.

    Raises:
        UserError: The table is missing, damaged or of neither kind, a row is wrong, or an image is no scene.
    """
    sheet = read_sheet(path)
    names = index.palette.names
    if "image" not in sheet.header:
        return TagTable.read(path, names).without_scenes(index.broken)
    # Scenes that `prepare` left out as broken are left out here; it has said so.
    rows = [row for row in _image_rows(sheet, names) if row.image not in index.broken]
    scenes = {scene.name: scene for scene in index.scenes}
    for row in rows:
        if row.image not in scenes or ("split" in sheet.header and scenes[row.image].split != row.split):
            known = f"is in the split {scenes[row.image].split}" if row.image in scenes else "is not there"
            raise UserError(
                f"{path}, line {row.line}: among the prepared scenes {row.image} {known}; correct the row, "
                f"or run python -m ome.run stage=prepare dataset={index.dataset}"
            )
    chosen = [scenes[row.image] for row in rows]
    tags = np.array([[name in row.tags for name in names] for row in rows], dtype=np.uint8)
    return TagTable(
        names,
        tuple(Tile(scene.name, 0, 0, scene.height, scene.width) for scene in chosen),
        tags.reshape(len(rows), len(names)),
        tuple(scene.split for scene in chosen),
        np.asarray([row.kept for row in rows], dtype=bool),
    )


def _class_names(sheet: Sheet) -> tuple[str, ...]:
    if "tags" not in sheet.header:
        return tuple(name for name in sheet.header if name not in RESERVED)
    for line, row in sheet.rows:
        check_length(row, f"{sheet.path}, line {line}")
    return tuple(sorted({tag for _, row in sheet.rows for tag in listed_tags(row)}))


def listed_tags(row: dict[Any, Any]) -> list[str]:
    """The names of classes in a row's column `tags`."""
    return [tag.strip() for tag in re.split("[;|]", row["tags"]) if tag.strip()]


def _image_rows(sheet: Sheet, names: Sequence[str]) -> list[ImageRow]:
    """The rows of a table of images, each checked."""
    known = [*RESERVED] if "tags" in sheet.header else [*RESERVED, *names]
    if unknown := [name for name in sheet.header if name not in known]:
        hint = "a table has tags, or a column for each class" if "tags" in sheet.header else _are(names)
        raise UserError(f"{sheet.path}, line 1: {unknown[0]!r} is no column; {hint}")
    if "tags" not in sheet.header and (missing := [name for name in names if name not in sheet.header]):
        raise UserError(
            f"{sheet.path}, line 1: no column {', '.join(missing)} (columns are separated by commas)"
        )
    if not sheet.rows or not names:
        raise UserError(
            f"{sheet.path} has no tags: give each image a row, with at least one class in one of them"
        )
    rows = [_image_row(line, row, sheet, names) for line, row in sheet.rows]
    lines: dict[str, int] = {}
    for row in rows:
        if row.image in lines:
            where = f"{sheet.path}, line {row.line}"
            raise UserError(f"{where}: image {row.image} stands in line {lines[row.image]} already")
        lines[row.image] = row.line
    return rows


def _image_row(line: int, row: dict[Any, Any], sheet: Sheet, names: Sequence[str]) -> ImageRow:
    where = f"{sheet.path}, line {line}"
    check_length(row, where)
    if not row["image"].strip():
        raise UserError(f"{where}: no image is named")
    if "tags" in row:
        tags = frozenset(listed_tags(row))
        if unknown := sorted(tags - set(names)):
            raise UserError(f"{where}: {unknown[0]!r} is no class; {_are(names)}")
    else:
        tags = frozenset(name for name in names if zero_or_one(row, name, where))
    image, split = image_name(row["image"].strip()), parse_split(row.get("split", ""), where)
    # With the column, an empty cell says that nobody has decided yet.
    decided = bool(row.get("kept", "").strip())
    kept = bool(zero_or_one(row, "kept", where)) if decided else bool(tags)
    if not tags and (kept or (split == "train" and "kept" not in row)):
        raise UserError(f"{where}: {image} has no tag to train on; give it one, or delete the row")
    return ImageRow(line, image, split, kept, tags)


def parse_split(value: str, where: str) -> SplitName:
    """The split that a cell names, `train` where it is empty; `where` is named in the error."""
    for split in SPLITS:
        if split == (value.strip() or "train"):
            return split
    raise UserError(f"{where}: split is {value!r}; give one of {', '.join(SPLITS)}")


def _are(names: Sequence[str]) -> str:
    return f"the classes are {', '.join(names)}"
