"""The tags while a person works on them; each change is on the disk before it is confirmed."""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.data.listed_names import check_listed
from ome.data.suggestions import Suggestion
from ome.errors import UserError
from ome.scoring.cooccurrence import cooccurrence
from ome.tagging.changes import Change, ChangedError, Shown
from ome.tagging.items import Item, Key
from ome.tagging.names import checked_name
from ome.tagging.table import Row, Table


class Session:
    """The items, their tags, and the changes so far; safe to use from several threads.

    Args:
        items: Items to be tagged, in the order in which the page shows them.
        table: The table to be continued; its file is not written before the first change.
        names: Further class names besides those of the table.
        suggestions: Suggestions of a classifier, by image or window.
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
        self._splits = _shared_splits(table.rows.values())
        self._names = tuple(dict.fromkeys([*table.names, *(checked_name(name, ()) for name in names)]))
        self._check_listed(self._names)
        self._done: list[Change] = []
        self._undone: list[Change] = []
        self._lock = threading.Lock()
        self._content = self._file_content()

    @property
    def names(self) -> tuple[str, ...]:
        """The class names, in order of their keys on the page."""
        return self._names

    def row(self, number: int) -> Row:
        """The row of an item; an empty row if the table has none."""
        item = self.items[number]
        if (row := self._rows.get(item.key)) is not None:
            return row
        split = self._splits.get(item.image, "train") if item.tile else "train"
        return Row(item.file.name if item.tile is None else item.image, split)

    def set_tags(
        self, number: int, tags: Collection[str], *, none: bool = False, shown: Shown | None = None
    ) -> None:
        """Sets the tags of an item and writes the table.

        Args:
            number: Number of the item.
            tags: Names of the classes that it shows; empty for an item that is not decided.
            none: Whether it shows none of the classes.
            shown: What the person saw before the change; None for no check.

        Raises:
            ChangedError: The item is not as it was shown.
            UserError: A tag is not a class, `none` is true despite tags, or the file cannot be written.
        """
        with self._lock:
            if unknown := sorted(set(tags) - set(self._names)):
                raise UserError(f"{unknown[0]!r} is not a class; the classes are {', '.join(self._names)}")
            if tags and none:
                raise UserError("an image has tags or shows none of the classes, not both")
            before = self.row(number)
            if shown not in {None, (before.tags, before.status)}:
                raise ChangedError(f"another window has changed {self.items[number].title}: it is shown anew")
            kept = "0" if none else ("" if before.status == "none" or not tags else before.kept)
            after = replace(before, tags=frozenset(tags), kept=kept)
            if after != before:
                old = self._rows.get(self.items[number].key)
                self._do(Change(number, (old, after), (self._names, self._names)))

    def add_class(self, name: str) -> None:
        """Adds a class after the others.

        Raises:
            UserError: The name is invalid or in use, or the file cannot be written.
        """
        with self._lock:
            names = (*self._names, checked_name(name, self._names))
            self._check_listed(names)
            self._do(Change(None, (None, None), (self._names, names)))

    def remove_class(self, name: str) -> None:
        """Removes a class that no image has.

        Raises:
            UserError: The class does not exist, is a tag of an image, or the file cannot be written.
        """
        with self._lock:
            if name not in self._names:
                raise UserError(f"unknown class {name!r}")
            if count := sum(name in row.tags for row in self._rows.values()):
                raise UserError(f"{name} is a tag of {count} images: remove it from these first")
            names = tuple(other for other in self._names if other != name)
            self._do(Change(None, (None, None), (self._names, names)))

    def undo(self) -> int | None:
        """Undoes the last change; returns the number of the changed item, None if it was not of an item."""
        return self._step(self._done, self._undone, 0)

    def redo(self) -> int | None:
        """Makes the change again that was undone last; returns as `undo`."""
        return self._step(self._undone, self._done, 1)

    def summary(self) -> dict[str, Any]:
        """Counts, co-occurrence, and the numbers of changes that can be undone and redone, for the page."""
        rows = [self.row(number) for number in range(len(self.items))]
        trains, names = [row for row in rows if row.trains], self._names  # another thread may change them
        tags = np.array([[name in row.tags for name in names] for row in trains], dtype=np.uint8)
        tags = tags.reshape(len(trains), len(names))
        return {
            "names": names,
            "images": tags.sum(axis=0).tolist(),
            "cooccurrence": _without_nan(cooccurrence(tags)),
            "undo": len(self._done),
            "redo": len(self._undone),
        }

    def _step(self, source: list[Change], target: list[Change], side: int) -> int | None:
        with self._lock:
            if not source:
                return None
            change = source[-1]
            self._apply(change, side)
            target.append(source.pop())
            return change.number

    def _do(self, change: Change) -> None:
        self._apply(change, 1)
        self._done.append(change)
        self._undone.clear()

    def _apply(self, change: Change, side: int) -> None:
        """Writes the state before (side 0) or after (side 1) a change; an error leaves all unchanged."""
        rows = dict(self._rows)
        if change.number is not None:
            key, row = self.items[change.number].key, change.rows[side]
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row
        try:
            if self._file_content() != self._content:
                raise UserError(f"{self._table.path} was changed by another program: start ome tags again")
            self._table.write(change.names[side], rows)
            self._content = self._file_content()
        except OSError as error:
            raise UserError(f"{self._table.path} cannot be written: {error.strerror}") from error
        self._rows, self._names = rows, change.names[side]

    def _check_listed(self, names: Sequence[str]) -> None:
        """Refuses names that a table which lists tags in a cell could not be read with."""
        if self._table.form == "listed":
            check_listed(names, str(self._table.path))

    def _file_content(self) -> bytes | None:
        """The bytes of the file, as other programs may keep its size and time; None for no file."""
        try:
            return self._table.path.read_bytes()
        except FileNotFoundError:
            return None


def _shared_splits(rows: Iterable[Row]) -> dict[str, str]:
    """The split of each image whose windows are all in the same one, which its next windows join."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.image, set()).add(row.split)
    return {image: min(found) for image, found in splits.items() if len(found) == 1}


def _without_nan(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    """Replaces nan by None, since JSON has no nan."""
    return [[None if np.isnan(value) else value for value in row] for row in matrix.tolist()]
