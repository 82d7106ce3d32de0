"""The tags while a person works on them: a change is on the disk before anybody hears that it was made."""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.data.names import check_class, check_classes, normal_form
from ome.data.suggestions import Suggestion
from ome.data.tag_rows import IMAGE_COLUMNS, WINDOW_COLUMNS
from ome.errors import UserError
from ome.scoring.cooccurrence import cooccurrence
from ome.tagging.items import Item, Key
from ome.tagging.table import Row, Table


@dataclass(frozen=True)
class Change:
    """One step that can be undone: of a row, or of the class names.

    Attributes:
        number: The item; None where class names changed.
        rows: Its row before and after; None for no row.
        names: The class names before and after.
    """

    number: int | None
    rows: tuple[Row | None, Row | None]
    names: tuple[tuple[str, ...], tuple[str, ...]]


class Session:
    """The items, their tags, and what has been done so far; safe to use from several threads.

    Args:
        items: What gets tags, in the order in which it is shown.
        table: The file that is continued. Nothing is written before the first change.
        names: Classes that are offered beside those of the table.
        suggestions: What a classifier thinks, by image or window.
    """

    def __init__(
        self,
        items: Sequence[Item],
        table: Table,
        names: Sequence[str] = (),
        suggestions: Mapping[Key, Suggestion] | None = None,
    ) -> None:
        self.items = tuple(items)
        self.suggestions = dict(suggestions or {})
        self._table = table
        self._rows: dict[Key, Row] = dict(table.rows)
        self._splits = {row.image: row.split for row in table.rows.values()}
        self._names = tuple(dict.fromkeys([*table.names, *(checked_name(name, ()) for name in names)]))
        self._done: list[Change] = []
        self._undone: list[Change] = []
        self._lock = threading.Lock()
        self._stamp = self._file_stamp()

    @property
    def names(self) -> tuple[str, ...]:
        """The class names, in order of their keys."""
        return self._names

    def row(self, number: int) -> Row:
        """What is known of an item; an empty row where the table has none."""
        item = self.items[number]
        if (row := self._rows.get(item.key)) is not None:
            return row
        # Windows of one image are in one split.
        split = self._splits.get(item.image, "train") if item.tile else "train"
        return Row(item.file.name if item.tile is None else item.image, split)

    def set_tags(self, number: int, tags: Collection[str], *, none: bool = False) -> None:
        """Decides an item, and returns when that is on the disk.

        Args:
            number: Of the item.
            tags: Names of the classes that it shows; empty to leave it open.
            none: It shows none of the classes.

        Raises:
            UserError: A tag is not a class, there are tags and none, or the file cannot be written.
        """
        with self._lock:
            if unknown := sorted(set(tags) - set(self._names)):
                raise UserError(f"{unknown[0]!r} is not a class; the classes are {', '.join(self._names)}")
            if tags and none:
                raise UserError("an image has tags or shows none of the classes, not both")
            before = self.row(number)
            kept = "0" if none else ("" if before.status == "none" or not tags else before.kept)
            after = replace(before, tags=frozenset(tags), kept=kept)
            if after != before:
                old = self._rows.get(self.items[number].key)
                self._do(Change(number, (old, after), (self._names, self._names)))

    def add_class(self, name: str) -> None:
        """Adds a class after the others.

        Raises:
            UserError: It cannot be a class's name, there is one of that name, or the file cannot be written.
        """
        with self._lock:
            names = (*self._names, checked_name(name, self._names))
            self._do(Change(None, (None, None), (self._names, names)))

    def remove_class(self, name: str) -> None:
        """Takes a class away that no image has.

        Raises:
            UserError: The class does not exist, or it has images, or the file cannot be written.
        """
        with self._lock:
            if name not in self._names:
                raise UserError(f"unknown class {name!r}")
            if count := sum(name in row.tags for row in self._rows.values()):
                raise UserError(f"{name} is a tag of {count} images: take it off these first")
            names = tuple(other for other in self._names if other != name)
            self._do(Change(None, (None, None), (self._names, names)))

    def undo(self) -> int | None:
        """Takes the last change back; returns the item it was made to, None if it was none of an item."""
        return self._step(self._done, self._undone, 0)

    def redo(self) -> int | None:
        """Makes the last change again that was taken back; returns as `undo`."""
        return self._step(self._undone, self._done, 1)

    def summary(self) -> dict[str, Any]:
        """Counts, co-occurrence and what can be undone, for the page."""
        rows = [self.row(number) for number in range(len(self.items))]
        trains = [row for row in rows if row.trains]
        tags = np.array([[name in row.tags for name in self._names] for row in trains], dtype=np.uint8)
        tags = tags.reshape(len(trains), len(self._names))
        return {
            "names": self._names,
            "images": tags.sum(axis=0).tolist(),
            "cooccurrence": _without_nan(cooccurrence(tags)),
            "undo": len(self._done),
            "redo": len(self._undone),
        }

    def _step(self, taken: list[Change], given: list[Change], place: int) -> int | None:
        with self._lock:
            if not taken:
                return None
            change = taken[-1]
            self._put(change, place)
            given.append(taken.pop())
            return change.number

    def _do(self, change: Change) -> None:
        self._put(change, 1)
        self._done.append(change)
        self._undone.clear()

    def _put(self, change: Change, place: int) -> None:
        """Writes what was before (0) or is after (1) a change; where that fails, nothing has changed."""
        rows = dict(self._rows)
        if change.number is not None:
            key, row = self.items[change.number].key, change.rows[place]
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row
        if self._file_stamp() != self._stamp:
            raise UserError(f"{self._table.path} was changed by another program: start ome tags again")
        try:
            self._table.write(change.names[place], rows)
        except OSError as error:
            raise UserError(f"{self._table.path} cannot be written: {error.strerror}") from error
        self._rows, self._names = rows, change.names[place]
        self._stamp = self._file_stamp()

    def _file_stamp(self) -> tuple[int, ...]:
        """Tells whether the file is still the one that was read or written last."""
        try:
            status = self._table.path.stat()
        except FileNotFoundError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns


def checked_name(name: str, taken: Collection[str]) -> str:
    """A class name in its normal form.

    Raises:
        UserError: See `check_class`; or a class of nearly the same name is there.
    """
    name = check_class(normal_form(name), "the class", (*IMAGE_COLUMNS, *WINDOW_COLUMNS))
    if same := [other for other in taken if other.casefold() == name.casefold()]:
        raise UserError(f"there is a class {same[0]} already")
    check_classes(dict.fromkeys((*taken, name), 0), "the page", typed=True)
    return name


def _without_nan(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    """JSON has no nan."""
    return [[None if np.isnan(value) else value for value in row] for row in matrix.tolist()]
