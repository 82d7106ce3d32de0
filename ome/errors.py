"""The error for mistakes that a user can correct: one line, no traceback."""

import difflib
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that break a line, move the cursor or turn the direction: control characters and separators."""

_OF_WORKER: Final = re.compile(r"Caught \w+ in .*\nOriginal Traceback ")
"""Start of the message that torch gives to an error of a process that loads data: its whole traceback."""


def one_line(text: str) -> str:
    r"""The text with its control characters written as in Python: a newline in a name becomes `\n`."""
    return _UNSEEN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    letter = match[0]
    return repr(letter)[1:-1] if letter.isascii() else f"\\u{ord(letter):04x}"


def shell_word(text: object) -> str:
    """A word of a command, such as a path, quoted for the shell on one line."""
    word = str(text)
    if not _UNSEEN.search(word):
        return shlex.quote(word)
    escaped = word.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{one_line(escaped)}'"


class UserError(Exception):
    """A mistake in the input, the configuration or the order of commands.

    The message is one line that says what is wrong, where (file, key, pixel count) and what to type
    or change instead. `ome.run` prints it without a traceback and exits with status 1.

    Args:
        *lines: The message, or several lines where several things are wrong. Names in them may hold newlines.
    """

    def __init__(self, *lines: str) -> None:
        if lines and _OF_WORKER.match(lines[0]):
            lines = tuple(re.split(r"\n[\w.]+Error: ", lines[0])[-1].strip().split("\n"))
        super().__init__(*map(one_line, lines))

    def __str__(self) -> str:
        """The message, a line for each mistake."""
        return "\n".join(self.args)


class OtherBandsError(UserError):
    """Weights fit a network, except that they are for images of another number of bands."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0]


def no_folder(path: Path) -> str:
    """The begin of an error line about a path that should be a folder."""
    return f"{path} {'is a file, not a folder' if path.exists() else 'does not exist'}"


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


def sharing_words(typed: str, known: Iterable[str]) -> list[str]:
    """The four shortest names with most words of one that others write, such as `facebook/dinov2-small`."""
    words = [word for word in re.split(r"[^a-z0-9]+", typed.lower()) if len(word) > 2]
    shared = {name: sum(word in name for word in words) for name in known}
    most = max(shared.values(), default=0)
    return sorted((name for name, count in shared.items() if most and count == most), key=len)[:4]
