"""Names of files that differ, but not on every disk."""

from collections.abc import Iterable

from ome.data.names import normal_form
from ome.errors import UserError


def folded(name: str) -> str:
    """The name as disks compare it that ignore case and how accents are composed, such as those of macOS."""
    return normal_form(name).casefold()


def check_apart(names: Iterable[str], what: str) -> None:
    """Refuses names that differ only in case.

    Args:
        names: Names in normal form.
        what: What they are the names of, for the error message.

    Raises:
        UserError: Files named after two of them would be one on many disks.
    """
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(folded(name), name)) != name:
            raise UserError(
                f"{what} {other!r} and {name!r} differ only in case, and their files would be one on many "
                "disks: rename one of them"
            )
