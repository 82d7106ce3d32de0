"""Tables written by people: CSV files and spreadsheets, read as rows of text."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from zipfile import BadZipFile

from ome.errors import UserError
from ome.extras import require

SPREADSHEETS: Final = (".xlsx", ".xlsm")
"""Suffixes of what openpyxl reads; everything else is taken for CSV."""


class Sheet(NamedTuple):
    """A table with one header row.

    Attributes:
        path: The file.
        header: Names of the columns, without spaces around them.
        rows: Line number and values by column of each row that is not blank. As `csv.DictReader` has it, a
            row too short holds None as a value, one too long None as a key.
    """

    path: Path
    header: list[str]
    rows: list[tuple[int, dict[Any, Any]]]


def read_sheet(path: Path) -> Sheet:
    """Reads a CSV file in UTF-8 with commas, or the first sheet of an `.xlsx` workbook.

    Raises:
        UserError: The file is missing or damaged, names a column twice, or is a workbook and openpyxl is not
            installed.
    """
    if not path.is_file():
        raise UserError(f"there is no tag table {path}")
    sheet = _workbook(path) if path.suffix.lower() in SPREADSHEETS else _csv(path)
    if len(set(sheet.header)) < len(sheet.header):
        raise UserError(f"{path}, line 1: a column occurs twice")
    return sheet


def _csv(path: Path) -> Sheet:
    try:
        # Spreadsheets put a byte order mark before the first column's name.
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            return Sheet(path, header, [(reader.line_num, row) for row in reader])
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV file: {error}") from error


def _workbook(path: Path) -> Sheet:
    require("spreadsheet", f"the spreadsheet {path}", "save it as CSV")
    import openpyxl  # noqa: PLC0415 - part of an extra

    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = [[_text(cell) for cell in row] for row in workbook.worksheets[0].iter_rows(values_only=True)]
        workbook.close()
    # Whatever the parts of a damaged workbook make the library trip over.
    except (BadZipFile, OSError, KeyError, ValueError, IndexError, TypeError, SyntaxError) as error:
        raise UserError(f"{path} is no spreadsheet: {error}; save it as .xlsx or CSV") from error
    header = _without_blank_end(lines[0]) if lines else []
    rows = [
        (number, _by_column(header, values))
        for number, values in enumerate(lines[1:], start=2)
        if any(values)
    ]
    return Sheet(path, header, rows)


def _by_column(header: Sequence[str], values: list[str]) -> dict[Any, Any]:
    padded = values + [""] * (len(header) - len(values))
    row: dict[Any, Any] = dict(zip(header, padded, strict=False))
    if surplus := _without_blank_end(values[len(header) :]):
        row[None] = surplus
    return row


def _without_blank_end(cells: list[str]) -> list[str]:
    """Cells that were once formatted count as filled: a row's blank end says nothing."""
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def _text(cell: object) -> str:
    """A cell as CSV would have it: 1 for 1.0 and for true, nothing for an empty one."""
    if cell is None:
        return ""
    if isinstance(cell, bool | float) and cell == int(cell):
        return str(int(cell))
    return str(cell).strip()
