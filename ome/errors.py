"""The error for mistakes that a user can correct: one line, no traceback."""

import difflib
from collections.abc import Collection, Iterable


class UserError(Exception):
    """A mistake in the input, the configuration or the order of commands.

    The message is one line that says what is wrong, where (file, key, pixel count) and what to type
    or change instead. `ome.run` prints it without a traceback and exits with status 1.
    """


class OtherBandsError(UserError):
    """Weights fit a network, except that they are for images of another number of bands."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0]


def few(items: Iterable[object], most: int = 5) -> str:
    """The first items of a list, for a message."""
    listed = [str(item) for item in items]
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


def guess(option: str, known: Collection[str]) -> str:
    """`; did you mean --classes?` after an unknown option such as --class; a colon where none is like it."""
    near = [name for name in known if name.startswith(option)]
    near = near or difflib.get_close_matches(option, known, n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ":"
