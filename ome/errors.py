"""The error for mistakes that a user can correct: one line, no traceback."""

import difflib
from collections.abc import Iterable


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


def guess(typed: str, known: Iterable[str], hint: str = "; did you mean {}?", otherwise: str = ":") -> str:
    """A hint such as `; did you mean --classes?` after an unknown name such as --class.

    Args:
        typed: The unknown name.
        known: The names that there are.
        hint: Returned with the name that is most like the unknown one in place of `{}`.
        otherwise: Returned where none is like it.
    """
    names = [*known]
    near = [name for name in names if typed and name.startswith(typed)]
    near = near or difflib.get_close_matches(typed, names, n=1, cutoff=0.65)
    return hint.format(near[0]) if near else otherwise
