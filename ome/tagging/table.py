"""The table of tags as a person fills it: read from a CSV file, and written after every change.

`dataset=custom` reads the same file, see `ome.data.image_tags`. What it refuses because work is unfinished,
as an image without tags among those that train, is read here all the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ome.data.names import SEPARATORS
from ome.data.sheets import SPREADSHEETS
from ome.data.tag_rows import IMAGE_COLUMNS, WINDOW_COLUMNS, Form, TagRow, read_tag_rows
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import write_csv
from ome.tagging.items import Key

Status = Literal["open", "tagged", "none"]
"""Not tagged yet; at least one class; none of the classes."""


@dataclass(frozen=True)
class Row:
    """What the table says of one image or window.

    Attributes:
        image: Its name as it is written in the file.
        split: As it is written in the file; empty where it says nothing.
        tags: Names of the classes it shows.
        kept: `1` or `0` for whether it trains, empty where nobody has decided.
        rest: Cells of columns that the page does not know; they stay as they are.
        given: Whether it stood in the file from the beginning; such a row is never taken out.
    """

    image: str
    split: str = "train"
    tags: frozenset[str] = frozenset()
    kept: str = ""
    rest: Mapping[str, str] = field(default_factory=dict)
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
            UserError: The file is not a table of tags, or a row is wrong; the message names file and line.
        """
        if path.suffix.lower() in SPREADSHEETS:
            raise UserError(f"{path} is a spreadsheet, and the page writes CSV: save it as .csv first")
        if not path.exists():
            return cls(path, "windows" if windows else "columns", (), {})
        table = read_tag_rows(path, finished=False)
        if table.form == "windows" and table.rows:
            TagTable.from_rows(path, table)
        rows: dict[Key, Row] = {row.tile or row.image: _row(row, table.form) for row in table.rows}
        return cls(path, table.form, table.names, rows, tuple(table.header))

    def write(self, names: Sequence[str], rows: Mapping[Key, Row]) -> None:
        """Writes the table and returns when it is on the disk.

        Args:
            names: Class names, in order of the columns.
            rows: What the file is to hold; rows that say nothing and are new are left out.
        """
        if self.form == "windows":
            header, lines = [*WINDOW_COLUMNS, *names], list(_window_lines(names, rows))
        else:
            written = [row for row in rows.values() if row.given or row.status != "open"]
            fixed = self._fixed_columns(written)
            classes = [] if self.form == "listed" else list(names)
            header, lines = [*fixed, *classes], [_image_line(fixed, classes, row) for row in written]
        write_csv(self.path.resolve(), header, lines, durable=True)  # where it is a link, it stays one

    def _fixed_columns(self, rows: Sequence[Row]) -> list[str]:
        """The file's own columns but for the classes, and `kept` where it has come to be needed."""
        listed = self.form == "listed"
        fixed = [name for name in self.header if listed or name in IMAGE_COLUMNS] or ["image", "split"]
        if "kept" not in fixed and any(row.status != "tagged" for row in rows):
            fixed.insert(fixed.index("split") + 1 if "split" in fixed else 1, "kept")
        return fixed


def _row(row: TagRow, form: Form) -> Row:
    kept = "" if row.kept is None else str(int(row.kept))
    if form == "windows":  # every window of a table is decided
        kept = kept or "1"
    return Row(row.written, row.split, row.tags, kept, row.rest, given=True)


def _image_line(fixed: Sequence[str], classes: Sequence[str], row: Row) -> list[str]:
    cells = {
        **row.rest,
        "image": row.image,
        "split": row.split,
        # An image with tags trains unless the table said otherwise.
        "kept": row.kept or ("1" if row.tags else ""),
        "tags": SEPARATORS[0].join(sorted(row.tags)),
    }
    return [*(cells.get(name, "") for name in fixed), *("1" if name in row.tags else "0" for name in classes)]


def _window_lines(names: Sequence[str], rows: Mapping[Key, Row]) -> Iterator[Iterable[object]]:
    """A window that nobody has decided has no row: such a table knows only 0 and 1."""
    for tile, row in rows.items():
        if isinstance(tile, Tile) and row.status != "open":
            where = [tile.name, tile.scene, tile.row, tile.column, tile.height, tile.width]
            tags = (int(name in row.tags) for name in names)
            yield [*where, row.split, int(row.trains), *tags]
