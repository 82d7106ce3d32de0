"""Tables written by people: CSV files and spreadsheets, read as rows of text."""

import csv
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile

from ome.data.names import normal_form
from ome.errors import UserError
from ome.extras import require
from ome.files import plain_cell

SPREADSHEETS: Final = (".xlsx", ".xlsm")
"""Suffixes of what openpyxl reads; everything else is taken for CSV."""


class Sheet(NamedTuple):
    """A table with one header row; names and cells are in their normal form.

    Attributes:
        path: The file.
        header: Names of the columns.
        rows: Line number and cells by column of each row that is not blank.
        uneven: Lines that are shorter or longer than the header.
    """

    path: Path
    header: list[str]
    rows: list[tuple[int, dict[str, str]]]
    uneven: list[int]

    def check_lengths(self) -> None:
        """Refuses rows that are not as long as the header, once its columns are known to be right.

        Raises:
            UserError: There is one.
        """
        if self.uneven:
            raise UserError(
                f"{self.path}, line {self.uneven[0]}: not as many values as the header has columns"
            )


def read_sheet(path: Path) -> Sheet:
    """Reads a CSV file in UTF-8 with commas, or the first sheet of an `.xlsx` workbook.

    Left out are columns that spreadsheets leave empty, and one without a name that numbers the rows.

    Raises:
        UserError: The file is missing or damaged, names a column twice, or is a workbook and openpyxl is
            not installed.
    """
    if not path.is_file():
        raise UserError(f"the table {path} does not exist: check the path")
    lines = _workbook(path) if path.suffix.lower() in SPREADSHEETS else _csv(path)
    lines = [(number, [normal_form(plain_cell(cell)) for cell in cells]) for number, cells in lines]
    header = lines[0][1] if lines else []
    body = [(number, cells) for number, cells in lines[1:] if any(cells)]
    named = [place for place, name in enumerate(header) if name]
    numbered = header[:1] == [""] and _numbers_rows([cells[0] for _, cells in body])
    names = [header[place] for place in named]
    if len(set(names)) < len(names):
        raise UserError(f"{path}, line 1: a column occurs twice")
    width = max(named, default=-1) + 1
    rows = [
        (number, {header[place]: cells[place] if place < len(cells) else "" for place in named})
        for number, cells in body
    ]
    uneven = [
        number
        for number, cells in body
        if len(cells) < width
        or any(
            cell for place, cell in enumerate(cells) if place not in named and not (numbered and place == 0)
        )
    ]
    return Sheet(path, names, rows, uneven)


def _numbers_rows(column: list[str]) -> bool:
    """Whether a column counts the rows from 0 or 1, as data frames write it."""
    return any(column == [str(number + first) for number in range(len(column))] for first in (0, 1))


def _csv(path: Path) -> list[tuple[int, list[str]]]:
    try:
        # Spreadsheets put a byte order mark before the first column's name.
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            return [(reader.line_num, cells) for cells in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _workbook(path: Path) -> list[tuple[int, list[str]]]:
    require("spreadsheet", f"the spreadsheet {path}", "save it as CSV")
    import openpyxl  # noqa: PLC0415 - part of an extra

    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = [[_text(cell) for cell in row] for row in workbook.worksheets[0].iter_rows(values_only=True)]
        workbook.close()
    # Whatever the parts of a damaged workbook make the library trip over.
    except (BadZipFile, OSError, KeyError, ValueError, IndexError, TypeError, SyntaxError) as error:
        raise UserError(f"{path} is not a spreadsheet: {error}; save it as .xlsx or CSV") from error
    width = len(lines[0]) if lines else 0
    return [(number, cells + [""] * (width - len(cells))) for number, cells in enumerate(lines, start=1)]


def _text(cell: object) -> str:
    """A cell as CSV would have it: 1 for 1.0 and for true, nothing for an empty one."""
    if cell is None:
        return ""
    if isinstance(cell, bool | float) and cell == int(cell):
        return str(int(cell))
    return str(cell)
