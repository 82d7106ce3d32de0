"""The table of tags as a person fills it: read from a CSV file, and written after every change.

`dataset=custom` reads the same file, see `ome.data.image_tags`. What it refuses because work is unfinished,
as an image without tags among those that train, is read here all the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ome.data.archives import image_name
from ome.data.image_tags import RESERVED, listed_tags, parse_split
from ome.data.sheets import SPREADSHEETS, Sheet, read_sheet
from ome.data.tags import COLUMNS, TagTable, check_length, zero_or_one
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import write_csv
from ome.tagging.items import Key

Status = Literal["open", "tagged", "none"]
"""Nobody has decided yet; at least one class; looked at, and it shows none of the classes."""

Form = Literal["columns", "listed", "windows"]
"""A row an image with a column for each class, or with the names of its tags; a row a window."""

SEPARATORS: Final = ";|"
"""What stands between the tags of a listed table."""


@dataclass(frozen=True)
class Row:
    """What the table says of one image or window.

    Attributes:
        image: Its name as it is written in the file.
        split: As it is written in the file; empty where it says nothing.
        tags: Names of the classes it shows.
        kept: `1` or `0` for whether it trains, empty where nobody has decided.
        given: Whether it stood in the file from the beginning; such a row is never taken out.
    """

    image: str
    split: str = "train"
    tags: frozenset[str] = frozenset()
    kept: str = ""
    given: bool = False

    @property
    def status(self) -> Status:
        """Whether and how it is decided."""
        if self.tags:
            return "tagged"
        return "none" if self.kept == "0" else "open"

    @property
    def trains(self) -> bool:
        """Whether its tags count among those that train the classifier or are counted by it."""
        return bool(self.tags) and self.kept != "0"


@dataclass(frozen=True)
class Table:
    """A table of tags.

    Attributes:
        path: The CSV file; it may not exist yet.
        form: How its rows are written.
        names: Class names, in order of the columns, or sorted.
        rows: By image or window, in order of the file.
        header: The file's columns; empty where there is no file.
    """

    path: Path
    form: Form
    names: tuple[str, ...]
    rows: Mapping[Key, Row]
    header: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path, *, windows: bool) -> "Table":
        """Reads the file, or makes an empty table where there is none.

        Args:
            path: A CSV file of either form that `dataset=custom` reads.
            windows: Whether a new table is to hold windows instead of images.

        Raises:
            UserError: The file is no table of tags, or a row is wrong; the message names file and line.
        """
        if path.suffix.lower() in SPREADSHEETS:
            raise UserError(f"{path} is a spreadsheet, and the page writes CSV: save it as .csv first")
        if not path.exists():
            return cls(path, "windows" if windows else "columns", (), {})
        sheet = read_sheet(path)
        header = tuple(sheet.header)
        if "scene" in header:
            return cls(path, "windows", *_windows(sheet), header)
        if "image" not in header:
            raise UserError(f"{path}, line 1: no column image or scene; is it a table of tags?")
        names, rows = _images(sheet)
        return cls(path, "listed" if "tags" in header else "columns", names, rows, header)

    def write(self, names: Sequence[str], rows: Mapping[Key, Row]) -> None:
        """Writes the table and returns when it is on the disk.

        Args:
            names: Class names, in order of the columns.
            rows: What the file is to hold; rows that say nothing and are new are left out.
        """
        if self.form == "windows":
            header, lines = [*COLUMNS, *names], list(_window_lines(names, rows))
        else:
            written = [row for row in rows.values() if row.given or row.status != "open"]
            fixed = self._fixed_columns(written)
            classes = [] if self.form == "listed" else list(names)
            header, lines = [*fixed, *classes], [_image_line(fixed, classes, row) for row in written]
        write_csv(self.path.resolve(), header, lines, durable=True)  # where it is a link, it stays one

    def _fixed_columns(self, rows: Sequence[Row]) -> list[str]:
        """The file's own columns but for the classes, and `kept` where it has come to be needed."""
        fixed = [name for name in self.header if name in RESERVED] or ["image", "split"]
        if "kept" not in fixed and any(row.status != "tagged" for row in rows):
            fixed.insert(fixed.index("split") + 1 if "split" in fixed else 1, "kept")
        return fixed


def _images(sheet: Sheet) -> tuple[tuple[str, ...], dict[Key, Row]]:
    names = [name for name in sheet.header if name not in RESERVED]
    if "tags" in sheet.header and names:
        raise UserError(
            f"{sheet.path}, line 1: {names[0]!r} is no column; a table has tags, or a column for each class"
        )
    rows: dict[Key, Row] = {}
    for line, values in sheet.rows:
        where = f"{sheet.path}, line {line}"
        check_length(values, where)
        written = values["image"].strip()
        name = image_name(written)
        if not written or name in rows:
            raise UserError(f"{where}: " + (f"image {name} stands above already" if name else "no image"))
        rows[name] = _image_row(values, written, names, where)
    if "tags" in sheet.header:
        names = sorted({tag for row in rows.values() for tag in row.tags})
    return tuple(names), rows


def _image_row(values: dict[Any, Any], image: str, names: Sequence[str], where: str) -> Row:
    split, kept = values.get("split", "").strip(), values.get("kept", "").strip()
    parse_split(split, where)
    if kept:
        zero_or_one(values, "kept", where)
    if "tags" in values:
        tags = frozenset(listed_tags(values))
    else:
        # A cell that is still empty is no tag yet.
        tags = frozenset(name for name in names if values[name].strip() and zero_or_one(values, name, where))
    return Row(image, split, tags, kept, given=True)


def _windows(sheet: Sheet) -> tuple[tuple[str, ...], dict[Key, Row]]:
    names = tuple(name for name in sheet.header if name not in COLUMNS)
    if not sheet.rows:
        return names, {}
    table = TagTable.read(sheet.path, names)
    rows: dict[Key, Row] = {}
    for tile, split, kept, tags in zip(table.tiles, table.splits, table.kept, table.tags, strict=True):
        present = frozenset(name for name, tag in zip(names, tags, strict=True) if tag)
        rows[tile] = Row(tile.scene, split, present, str(int(kept)), given=True)
    return names, rows


def _image_line(fixed: Sequence[str], classes: Sequence[str], row: Row) -> list[str]:
    cells = {
        "image": row.image,
        "split": row.split,
        # An image with tags trains unless the table said otherwise.
        "kept": row.kept or ("1" if row.tags else ""),
        "tags": SEPARATORS[0].join(sorted(row.tags)),
    }
    return [*(cells[name] for name in fixed), *("1" if name in row.tags else "0" for name in classes)]


def _window_lines(names: Sequence[str], rows: Mapping[Key, Row]) -> Iterator[Iterable[object]]:
    """A window that nobody has decided has no row: such a table knows only 0 and 1."""
    for tile, row in rows.items():
        if isinstance(tile, Tile) and row.status != "open":
            where = [tile.name, tile.scene, tile.row, tile.column, tile.height, tile.width]
            tags = (int(name in row.tags) for name in names)
            yield [*where, row.split, int(row.trains), *tags]
