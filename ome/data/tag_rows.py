"""The parser of tables of tags, in all their forms.

A row describes an image, with a column of 0 and 1 for each class or with the names of its tags in one cell,
or a window of an image, with a column for each class.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from rich.markup import escape

from ome.data.names import SEPARATORS, check_class, check_classes, check_name
from ome.data.raw_source import image_name
from ome.data.scene_index import SPLITS
from ome.data.sheets import Sheet, read_sheet
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.progress import console

Form = Literal["columns", "listed", "windows"]
"""`columns`: row per image, column per class. `listed`: tag names in one cell. `windows`: row per window."""

IMAGE_COLUMNS: Final = ("image", "split", "kept", "tags")
"""Columns of a table of images before those of the classes."""

WINDOW_COLUMNS: Final = ("tile", "scene", "row", "column", "height", "width", "split", "kept")
"""Columns of a table of windows before those of the classes; `tile` and `kept` are optional."""
# What people and pandas write for 0 and 1.
_MEANING: Final = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "x": 1}
_EMPTY: Final = ("nan", "NaN", "NaT", "NA", "<NA>", "None", "null", "NULL")
"""What programs write for an empty cell."""


class TagRow(NamedTuple):
    """One row.

    Attributes:
        line: Its line in the file.
        image: Name of the image without its suffix.
        written: The name as it is written in the file.
        tile: The window; None for the whole image.
        split: `train`, `val` or `test`; empty if the table does not say.
        kept: Whether the classifier trains on it; None if the table does not say.
        tags: Names of the classes in it.
        rest: Cells of columns that ome does not use, by name.
    """

    line: int
    image: str
    written: str
    tile: Tile | None
    split: str
    kept: bool | None
    tags: frozenset[str]
    rest: Mapping[str, str] = MappingProxyType({})


class TagRows(NamedTuple):
    """A table of tags.

    Attributes:
        form: Form of its rows.
        header: Its columns.
        names: Class names: as given, else the class columns in order, or the tags sorted by name.
        rows: Its rows.
    """

    form: Form
    header: list[str]
    names: tuple[str, ...]
    rows: list[TagRow]


def read_tag_rows(path: Path, names: Sequence[str] = (), *, finished: bool = True) -> TagRows:
    """Reads a table of tags.

    Args:
        path: A CSV file or an `.xlsx` workbook.
        names: Class names if known; empty to take them from the table.
        finished: Whether tagging is finished: then columns beside `tags` and names that differ in one letter
            are errors, and an empty cell of a class means 0. In an unfinished table they are allowed, and an
            empty cell is undecided.

    Raises:
        UserError: The file is missing, damaged or not a table of tags, or a row is wrong; the message names
            file and line.
    """
    sheet = _with_known_columns(read_sheet(path))
    form: Form = "columns"
    if "scene" in sheet.header:
        form = "windows"
    elif "image" not in sheet.header:
        raise UserError(
            f"{path}, line 1: no column image; give image,tags, or image and a column of 0 and 1 for "
            "each class (columns are separated by commas, semicolons or tabs)"
        )
    elif "tags" in sheet.header:
        form = "listed"
    classes = _classes(sheet, form, names, finished=finished)
    if finished and not names and (empty := [name for name in classes if name in _EMPTY]):
        raise UserError(
            f"{path}: {empty[0]} is what programs write for an empty cell: empty these cells or delete the "
            "column, or type 'dataset.classes=[...]' if it is a class"
        )
    sheet.check_lengths()
    parse = _window if form == "windows" else _image
    rows = [parse(line, cells, f"{path}, line {line}", classes, form) for line, cells in sheet.rows]
    _say_readings(sheet, classes, finished=finished)
    lines: dict[object, int] = {}
    for row in rows:
        if (key := row.tile or row.image) in lines:
            what = f"tile {row.tile.name}" if row.tile else f"image {row.image}"
            raise UserError(f"{path}, line {row.line}: {what} is already in line {lines[key]}")
        lines[key] = row.line
    counts = {name: sum(name in row.tags for row in rows) for name in classes}
    check_classes(counts, str(path), typed=bool(names) or form != "listed" or not finished)
    return TagRows(form, sheet.header, classes, rows)


def _with_known_columns(sheet: Sheet) -> Sheet:
    """The table with the names of its fixed columns in lower case; class names are kept."""
    small = {name: name.casefold() for name in sheet.header}
    known = WINDOW_COLUMNS if "scene" in small.values() else IMAGE_COLUMNS
    names = {name: lower if lower in known else name for name, lower in small.items()}
    header = list(names.values())
    if twice := [name for name in header if header.count(name) > 1]:
        raise UserError(f"{sheet.path}, line 1: the column {twice[0]} occurs twice")
    rows = [(line, {names[name]: cell for name, cell in cells.items()}) for line, cells in sheet.rows]
    return sheet._replace(header=header, rows=rows)


def _say_readings(sheet: Sheet, classes: Sequence[str], *, finished: bool) -> None:
    """Prints how empty cells and crosses in class columns are read."""
    columns = [name for name in classes if name in sheet.header]
    cells = [row[name] for _, row in sheet.rows for name in columns]
    if finished and (empty := cells.count("")):
        _say_once(f"{sheet.path}: {empty} of {len(cells)} cells of classes are empty: they are read as 0")
    if crosses := sum(cell.casefold() == "x" for cell in cells):
        _say_once(f"{sheet.path}: {crosses} of {len(cells)} cells of classes are x: they are read as 1")


@cache
def _say_once(line: str) -> None:
    """Prints a line once, although every stage reads the table, some several times."""
    console.print(f"[yellow]{escape(line)}[/]", highlight=False)


def _classes(sheet: Sheet, form: Form, names: Sequence[str], *, finished: bool) -> tuple[str, ...]:
    fixed = WINDOW_COLUMNS if form == "windows" else IMAGE_COLUMNS
    where = f"{sheet.path}, line 1"
    columns = [name for name in sheet.header if name not in fixed]
    if form == "listed":
        sheet.check_lengths()
        if columns and finished:
            raise UserError(
                f"{where}: unknown column {columns[0]!r}; a table has tags, or a column for each class"
            )
        first_line: dict[str, int] = {}  # in order of the lines, so that the first error is reported
        for line, cells in sheet.rows:
            for tag in listed_tags(cells["tags"]):
                first_line.setdefault(tag, line)
        for tag, line in first_line.items():
            check_class(tag, f"{sheet.path}, line {line}: the class", fixed)
        if names and (unknown := [tag for tag in first_line if tag not in names]):
            raise UserError(
                f"{sheet.path}, line {first_line[unknown[0]]}: unknown class {unknown[0]!r}; {_are(names)}"
            )
        return tuple(names) or tuple(sorted(first_line))
    if names and (unknown := [name for name in columns if name not in names]):
        raise UserError(f"{where}: unknown column {unknown[0]!r}; {_are(names)}")
    for name in columns:
        check_class(name, f"{where}: the class", fixed)
    required = [*(WINDOW_COLUMNS[1:-1] if form == "windows" else ()), *names]
    if missing := [name for name in required if name not in sheet.header]:
        raise UserError(f"{where}: no column {', '.join(missing)}")
    return tuple(names) or tuple(columns)


def _image(line: int, cells: dict[str, str], where: str, names: Sequence[str], form: Form) -> TagRow:
    written = cells["image"]
    if not written:
        raise UserError(f"{where}: no image is named")
    image = check_name(image_name(written), f"{where}: the image")
    tags = _tags(cells, where, names, form)
    known = (*IMAGE_COLUMNS, *names)
    rest = {name: cell for name, cell in cells.items() if name not in known}
    return TagRow(line, image, written, None, _split(cells, where), _kept(cells, where), tags, rest)


def _window(line: int, cells: dict[str, str], where: str, names: Sequence[str], form: Form) -> TagRow:
    # Tables written by ome have a column `tile`, and scenes without suffixes.
    scene = cells["scene"] if "tile" in cells else image_name(cells["scene"])
    check_name(scene, f"{where}: the scene")
    tile = Tile(scene, *(_pixels(cells, name, where) for name in ("row", "column", "height", "width")))
    if min(tile.height, tile.width) < 1:
        raise UserError(f"{where}: height and width must be at least 1")
    if cells.get("tile", tile.name) != tile.name:
        raise UserError(f"{where}: tile is {cells['tile']!r}, but its scene, row and column give {tile.name}")
    tags = _tags(cells, where, names, form)
    return TagRow(line, scene, scene, tile, _split(cells, where), _kept(cells, where), tags)


def _tags(cells: dict[str, str], where: str, names: Sequence[str], form: Form) -> frozenset[str]:
    if form == "listed":
        return frozenset(listed_tags(cells["tags"]))
    return frozenset(name for name in names if cells[name] and _zero_or_one(cells, name, where))


def listed_tags(cell: str) -> list[str]:
    """The names of classes in a cell."""
    return [tag.strip() for tag in re.split(f"[{SEPARATORS}]", cell) if tag.strip()]


def _split(cells: dict[str, str], where: str) -> str:
    split = cells.get("split", "")
    if split and split not in SPLITS:
        raise UserError(f"{where}: split is {split!r}; give one of {', '.join(SPLITS)}")
    return split


def _kept(cells: dict[str, str], where: str) -> bool | None:
    return bool(_zero_or_one(cells, "kept", where)) if cells.get("kept") else None


def _pixels(cells: dict[str, str], name: str, where: str) -> int:
    if not (cells[name].isdecimal() and len(cells[name]) < 10):
        raise UserError(f"{where}: {name} is {cells[name]!r}; give whole pixels")
    return int(cells[name])


def _zero_or_one(cells: dict[str, str], name: str, where: str) -> int:
    value = _MEANING.get(cells[name].casefold())
    if value is None:
        raise UserError(f"{where}: {name} is {cells[name]!r}; give 0 or 1")
    return value


def _are(names: Sequence[str]) -> str:
    return f"the classes are {', '.join(names)}"
