"""The parser of tables of tags, in all their forms.

A row describes an image, with a column of 0 and 1 for each class or with the names of its tags in one cell,
or a window of an image, with a column for each class.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ome.data.listed_names import check_joined, check_listed
from ome.data.names import EMPTY, IMAGE_COLUMNS, OPTIONAL_COLUMNS, WINDOW_COLUMNS, check_class, check_classes
from ome.data.sheets import Sheet, read_sheet
from ome.data.tag_row import Form, TagRow, image_row, listed_tags, window_row
from ome.data.user_csv import Style
from ome.errors import UserError
from ome.progress import say_once

OF_SPLITS: Final = frozenset(
    {
        *("train", "training", "istrain", "istraining", "val", "valid", "validation", "isval", "isvalid"),
        *("isvalidation", "test", "testing", "istest", "istesting", "fold", "set", "subset"),
    }
)
"""Columns by which other programs tell what trains, in lower case and without blanks and signs."""

OF_ROWS: Final = frozenset({"id", "index", "total", "sum"})
"""Columns that number or count, written like those of `OF_SPLITS`."""


class TagRows(NamedTuple):
    """A table of tags.

    Attributes:
        form: Form of its rows.
        header: Its columns.
        names: Class names: as given, else the class columns in order, or the tags sorted by name.
        rows: Its rows.
        style: How the file is written.
    """

    form: Form
    header: list[str]
    names: tuple[str, ...]
    rows: list[TagRow]
    style: Style


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
    if finished and not names:
        _check_meant(classes, form, path)
    sheet.check_lengths()
    parse = window_row if form == "windows" else image_row
    rows = [parse(line, cells, f"{path}, line {line}", classes, form) for line, cells in sheet.rows]
    if finished and form != "windows":  # which need a split in every row
        _say_empty_splits(sheet)
    _say_readings(sheet, classes, finished=finished)
    lines: dict[str, int] = {}
    for row in rows:
        # Not `row.tile`: tags and CAMs of windows with the same corner would overwrite each other.
        what = f"tile {row.tile.name}" if row.tile else f"image {row.image}"
        if what in lines:
            raise UserError(f"{path}, line {row.line}: {what} is already in line {lines[what]}")
        lines[what] = row.line
    counts = {name: sum(name in row.tags for row in rows) for name in classes}
    typed = bool(names) or form != "listed" or not finished
    check_classes(counts, str(path), typed=typed)
    if not typed:
        check_listed(classes, str(path))
        if all(len(row.tags) < 2 for row in rows):
            check_joined(classes, str(path))
    return TagRows(form, sheet.header, classes, rows, sheet.style)


def _with_known_columns(sheet: Sheet) -> Sheet:
    """The table with the names of its fixed columns in lower case; class names are kept."""
    small = {name: name.casefold() for name in sheet.header}
    known = (*WINDOW_COLUMNS, *OPTIONAL_COLUMNS) if "scene" in small.values() else IMAGE_COLUMNS
    names = {name: lower if lower in known else name for name, lower in small.items()}
    header = list(names.values())
    if twice := [name for name in header if header.count(name) > 1]:
        raise UserError(f"{sheet.path}, line 1: the column {twice[0]} occurs twice")
    rows = [(line, {names[name]: cell for name, cell in cells.items()}) for line, cells in sheet.rows]
    return sheet._replace(header=header, rows=rows)


def _check_meant(classes: Sequence[str], form: Form, path: Path) -> None:
    """Refuses classes that nobody has named, and that mean something else in most tables."""
    for name in classes:
        if name.casefold() in EMPTY:
            raise UserError(
                f"{path}: {name} stands for an empty cell in many tables: empty these cells or delete the "
                "column, or type 'dataset.classes=[...]' if it is a class"
            )
        word = re.sub(r"[\W_]", "", name.casefold())
        if form == "listed" or word not in OF_SPLITS | OF_ROWS:
            continue
        fault = "is no class, it seems: delete it"
        if word in OF_SPLITS:
            fault = "looks like a split: write a column `split` with train, val or test"
        raise UserError(
            f"{path}: the column {name} {fault}; if it is a class, name all classes by "
            "'dataset.classes=[...]'"
        )


def _say_readings(sheet: Sheet, classes: Sequence[str], *, finished: bool) -> None:
    """Prints how empty cells and crosses in class columns are read."""
    columns = [name for name in classes if name in sheet.header]
    cells = [row[name] for _, row in sheet.rows for name in columns]
    if finished and (empty := cells.count("")):
        say_once(f"{sheet.path}: {empty} of {len(cells)} cells of classes are empty: they are read as 0")
    if crosses := sum(cell.casefold() == "x" for cell in cells):
        say_once(f"{sheet.path}: {crosses} of {len(cells)} cells of classes are x: they are read as 1")


def _say_empty_splits(sheet: Sheet) -> None:
    """Prints how empty cells of `split` are read if others are filled."""
    cells = [row.get("split", "") for _, row in sheet.rows]
    if any(cells) and (empty := cells.count("")):
        say_once(f"{sheet.path}: {empty} of {len(cells)} cells of split are empty: they are read as train")


def _classes(sheet: Sheet, form: Form, names: Sequence[str], *, finished: bool) -> tuple[str, ...]:
    fixed = (*WINDOW_COLUMNS, *OPTIONAL_COLUMNS) if form == "windows" else IMAGE_COLUMNS
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
            check_class(tag, f"{sheet.path}, line {line}: the class")
        if names and (unknown := [tag for tag in first_line if tag not in names]):
            raise UserError(
                f"{sheet.path}, line {first_line[unknown[0]]}: unknown class {unknown[0]!r}; {_are(names)}"
            )
        return tuple(names) or tuple(sorted(first_line))
    if names and (unknown := [name for name in columns if name not in names]):
        raise UserError(f"{where}: unknown column {unknown[0]!r}; {_are(names)}")
    for name in columns:
        check_class(name, f"{where}: the class")
    required = [*(WINDOW_COLUMNS[1:-1] if form == "windows" else ()), *names]
    if missing := [name for name in required if name not in sheet.header]:
        raise UserError(f"{where}: no column {', '.join(missing)}")
    return tuple(names) or tuple(columns)


def _are(names: Sequence[str]) -> str:
    return f"the classes are {', '.join(names)}"
