"""The table of tags while a person fills it: read from a CSV file, and written after every change.

`dataset=custom` reads the same file, see `ome.data.image_tags`. Unlike there, a table may be unfinished here,
e.g. have a training image without tags.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ome.data.names import IMAGE_COLUMNS, SEPARATORS, TOO_SMALL, WINDOW_COLUMNS
from ome.data.sheets import OTHERS, SPREADSHEETS
from ome.data.tag_row import Form, TagRow, listed_tags
from ome.data.tag_rows import read_tag_rows
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.data.user_csv import Style, write_user_csv
from ome.errors import UserError
from ome.tagging.items import Key

Status = Literal["open", "tagged", "none"]
"""Not decided yet; at least one class; none of the classes."""


@dataclass(frozen=True)
class Row:
    """A row of the table, for one image or window.

    Attributes:
        image: Name of the image as in the file.
        split: Split as in the file; may be empty.
        tags: Names of the classes that the image shows.
        kept: `1` or `0` for whether the image is used in training; empty if not decided.
        rest: Cells of columns that the page does not know; they stay as they are.
        from_file: Whether the row was in the file at the start; such a row is never removed.
    """

    image: str
    split: str = "train"
    tags: frozenset[str] = frozenset()
    kept: str = ""
    rest: Mapping[str, str] = field(default_factory=dict)
    from_file: bool = False

    @property
    def status(self) -> Status:
        """Whether the image is decided, and if so, whether it shows any class."""
        if self.tags:
            return "tagged"
        return "none" if self.kept == "0" else "open"

    @property
    def trains(self) -> bool:
        """Whether the image has tags and is used, in training or in counts."""
        return bool(self.tags) and self.kept != "0"


@dataclass(frozen=True)
class Table:
    """A table of tags.

    Attributes:
        path: The CSV file; it may not exist yet.
        form: Form of the rows.
        names: Class names, in order of the columns, or sorted.
        rows: Rows by image or window, in order of the file.
        header: Columns of the file; empty if it does not exist.
        style: How the file is written.
    """

    path: Path
    form: Form
    names: tuple[str, ...]
    rows: Mapping[Key, Row]
    header: tuple[str, ...] = ()
    style: Style = field(default_factory=Style)

    @classmethod
    def read(cls, path: Path, *, windows: bool) -> "Table":
        """Reads the file; if it does not exist, the table is empty.

        Args:
            path: A CSV file of any form that `dataset=custom` reads.
            windows: Whether a new table is for windows instead of images.

        Raises:
            UserError: The file is not a table of tags, or a row is invalid; the message names file and line.
        """
        if path.suffix.lower() in (*SPREADSHEETS, *OTHERS):
            raise UserError(f"{path} is a spreadsheet, but the page writes CSV: save it as .csv first")
        if not path.exists():
            return cls(path, "windows" if windows else "columns", (), {})
        table = read_tag_rows(path, finished=False)
        if table.form == "windows" and table.rows:
            TagTable.from_rows(path, table)
        rows: dict[Key, Row] = {row.tile or row.image: _row(row, table.form) for row in table.rows}
        return cls(path, table.form, table.names, rows, tuple(table.header), table.style)

    def write(self, names: Sequence[str], rows: Mapping[Key, Row]) -> None:
        """Writes the table and syncs it to the disk.

        Args:
            names: Class names, in order of the columns.
            rows: Rows by image or window; new rows that are not decided are not written.
        """
        if self.form == "windows":
            fixed = [*WINDOW_COLUMNS, *(name for name in self.header if name == TOO_SMALL)]
            header, lines = [*fixed, *names], list(_window_lines(fixed, names, rows))
        else:
            written = [row for row in rows.values() if row.from_file or row.status != "open"]
            fixed = self._fixed_columns(written)
            classes = [] if self.form == "listed" else list(names)
            header, lines = [*fixed, *classes], [_image_line(fixed, classes, row) for row in written]
        # Keeps a symbolic link; one that leads to itself is an OSError.
        path = Path(os.path.realpath(self.path))
        if path.exists() and not os.access(path, os.W_OK):  # a rename would replace it all the same
            raise PermissionError(errno.EACCES, "it is read-only", str(path))
        write_user_csv(path, header, lines, self.style)

    def _fixed_columns(self, rows: Sequence[Row]) -> list[str]:
        """The columns of the file except the classes, and `kept` if a row needs it."""
        listed = self.form == "listed"
        fixed = [name for name in self.header if listed or name in IMAGE_COLUMNS] or ["image", "split"]
        if "kept" not in fixed and any(row.status != "tagged" for row in rows):
            fixed.insert(fixed.index("split") + 1 if "split" in fixed else 1, "kept")
        return fixed


def _row(row: TagRow, form: Form) -> Row:
    kept = "" if row.kept is None else str(int(row.kept))
    if form == "windows":  # all windows in a table are decided
        small = {TOO_SMALL: SEPARATORS[0].join(sorted(row.too_small))}
        return Row(row.written, row.split, row.tags, kept or "1", small, from_file=True)
    return Row(row.written, row.split, row.tags, kept, row.rest, from_file=True)


def _image_line(fixed: Sequence[str], classes: Sequence[str], row: Row) -> list[str]:
    cells = {
        **row.rest,
        "image": row.image,
        "split": row.split,
        # An image with tags is used in training unless the table says otherwise.
        "kept": row.kept or ("1" if row.tags else ""),
        "tags": SEPARATORS[0].join(sorted(row.tags)),
    }
    return [*(cells.get(name, "") for name in fixed), *("1" if name in row.tags else "0" for name in classes)]


def _window_lines(
    fixed: Sequence[str], names: Sequence[str], rows: Mapping[Key, Row]
) -> Iterator[Iterable[object]]:
    """The lines of decided windows; others have none, since cells of this form are 0 or 1."""
    for tile, row in rows.items():
        if isinstance(tile, Tile) and row.status != "open":
            where = [tile.name, tile.scene, tile.row, tile.column, tile.height, tile.width]
            small = [tag for tag in listed_tags(row.rest.get(TOO_SMALL, "")) if tag in row.tags]
            if len(small) == len(row.tags):  # the person who chose them sees them
                small = []
            cells = [*where, row.split, int(row.trains), SEPARATORS[0].join(small)][: len(fixed)]
            yield [*cells, *(int(name in row.tags) for name in names)]
