"""Changes of the tags on the page, and what the page showed before them."""

from dataclasses import dataclass

from ome.errors import UserError
from ome.tagging.table import Row, Status

Shown = tuple[frozenset[str], Status]
"""The tags and the status of an item that a page shows."""


class ChangedError(UserError):
    """An item has been changed since it was shown."""


@dataclass(frozen=True)
class Change:
    """One change of a row or of the class names, which can be undone.

    Attributes:
        number: Number of the item; None for a change of the class names.
        rows: Row of the item before and after the change; None for no row.
        names: Class names before and after the change.
    """

    number: int | None
    rows: tuple[Row | None, Row | None]
    names: tuple[tuple[str, ...], tuple[str, ...]]
