"""Users' tables: CSV files and spreadsheets, read as rows of text."""

from pathlib import Path
from typing import Final, NamedTuple
from zipfile import ZipFile

from ome.data.names import UNNAMED, hidden_letter, normal_form
from ome.data.raw_file import check_expansion
from ome.data.shown_cells import check_shown
from ome.data.user_csv import Style, read_user_csv
from ome.errors import UserError, few
from ome.extras import require
from ome.files import is_file, plain_cell
from ome.progress import say_once

SPREADSHEETS: Final = (".xlsx", ".xlsm")
"""Suffixes of files that openpyxl reads; all other files except `OTHERS` are read as CSV."""
OTHERS: Final = (".xls", ".xlsb", ".ods", ".numbers")
"""Suffixes of unsupported spreadsheets."""


class Sheet(NamedTuple):
    """A table with one header row; names and cells are in normal form.

    Attributes:
        path: The file.
        header: Names of the columns.
        rows: Line number and cells by column of each row that is not blank.
        uneven: Lines that are shorter or longer than the header.
        style: How the file is written, if it is CSV.
    """

    path: Path
    header: list[str]
    rows: list[tuple[int, dict[str, str]]]
    uneven: list[int]
    style: Style

    def check_lengths(self) -> None:
        """Refuses rows whose length differs from the header's; call it after the header was checked.

        Raises:
            UserError: A row is too short or too long.
        """
        if self.uneven:
            remedy = "; a cell with several tags needs quotes, or | between them, as in road|tree"
            raise UserError(
                f"{self.path}, line {self.uneven[0]}: not as many values as the header has columns"
                + (remedy if self.style.delimiter == ";" else "")
            )


def default_table(folder: Path) -> Path:
    """The table of tags beside the images of a folder: `tags.csv`, which may not exist, or a spreadsheet.

    Prints which others of these there are, as only one is read.
    """
    first, *spreadsheets = (folder / f"tags{suffix}" for suffix in (".csv", *SPREADSHEETS, *OTHERS))
    existing = [path for path in (first, *spreadsheets) if path.exists()]
    if existing[1:]:
        others = few([path.name for path in existing[1:]])
        say_once(f"{existing[0]} is read, and not {others} beside it: delete or rename what is out of date")
    return existing[0] if existing else first


def read_sheet(path: Path) -> Sheet:
    """Reads a CSV file in UTF-8, or the first visible sheet of an `.xlsx` workbook.

    Empty columns, and an unnamed column that numbers the rows, are skipped.

    Raises:
        UserError: The file is missing, damaged or in another encoding, has formulas without values, names a
            column twice, or is a workbook and openpyxl is not installed.
    """
    if path.is_dir():
        raise UserError(f"the table {path} is a folder: give a file, e.g. {path / 'tags.csv'}")
    if not is_file(path):
        raise UserError(f"the table {path} does not exist: check the path")
    if path.suffix.lower() in OTHERS:
        raise UserError(f"{path}: this spreadsheet format is not supported: save it as .xlsx or CSV")
    book = path.suffix.lower() in SPREADSHEETS
    lines, style = (_workbook(path), Style()) if book else read_user_csv(path)
    lines = [(number, [normal_form(plain_cell(cell)) for cell in cells]) for number, cells in lines]
    header = ["" if UNNAMED.fullmatch(name) else name for name in lines[0][1]] if lines else []
    body = [(number, cells) for number, cells in lines[1:] if any(cells)]
    named = [place for place, name in enumerate(header) if name]
    numbered = header[:1] == [""] and _numbers_rows([cells[0] for _, cells in body])
    names = [header[place] for place in named]
    if hidden := "".join(map(hidden_letter, names))[:6]:
        raise UserError(f"{path}, line 1: a column's name has the invisible character {hidden}: retype it")
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
    return Sheet(path, names, rows, uneven, style)


def _numbers_rows(column: list[str]) -> bool:
    """Whether a column numbers the rows, as pandas writes it; rows may have been sorted or left out."""
    return all(map(str.isdecimal, column)) and len({*column}) == len(column)


def _workbook(path: Path) -> list[tuple[int, list[str]]]:
    require("spreadsheet", f"the spreadsheet {path}", "save it as CSV")
    import openpyxl  # noqa: PLC0415 - part of an extra

    try:
        with ZipFile(path) as archive:
            for member in archive.infolist():
                check_expansion(path, member)
        both = []
        for data_only in (True, False):
            workbook = openpyxl.load_workbook(path, read_only=True, data_only=data_only)
            visible = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"]
            for sheet in visible:
                sheet.reset_dimensions()  # the size that the file states may be wrong
            both.append(list(visible[0].iter_rows(values_only=True)))
            others = [
                sheet.title for sheet in visible[1:] if any(map(any, sheet.iter_rows(values_only=True)))
            ]
            workbook.close()
        with ZipFile(path) as archive, archive.open(visible[0]._worksheet_path) as sheet:  # noqa: SLF001
            lines = [[_text(cell) for cell in row] for row in both[0]]
            check_shown(path, sheet, lines)
    except UserError:
        raise
    except Exception as error:  # of a damaged workbook, or of one with parts that openpyxl does not know
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a spreadsheet: {reason}; save it as .xlsx or CSV") from error
    if others:
        say_once(
            f"{path}: of its sheets, {visible[0].title} is read, and not {few(others)}: move the sheet of "
            "the table to the front, or save it as CSV"
        )
    # A formula has a value only if a spreadsheet program has saved the file.
    for number, (row, cells) in enumerate(zip(both[1], lines, strict=True), start=1):
        if any(str(cell).startswith("=") and not text for cell, text in zip(row, cells, strict=False)):
            raise UserError(
                f"{path}, line {number}: a formula without a value: save the file in a spreadsheet program, "
                "or put values in place of formulas"
            )
    width = len(lines[0]) if lines else 0
    return [(number, cells + [""] * (width - len(cells))) for number, cells in enumerate(lines, start=1)]


def _text(cell: object) -> str:
    """A cell as CSV would write it: 1 for 1.0 and for true, an empty text for an empty cell."""
    if cell is None:
        return ""
    if isinstance(cell, bool | float) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)
