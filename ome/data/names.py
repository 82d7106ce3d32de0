"""Names of images, scenes, runs and classes: normal form, validity, and detection of near duplicates."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from ome.errors import UserError

LONGEST = 60
"""Largest number of characters in a class name."""
RARE = 2
"""Largest number of images for which a class name may be a typing error."""
SEPARATORS = ";|"
"""Separators of the tags in a cell."""

IMAGE_COLUMNS: Final = ("image", "split", "kept", "tags")
"""Columns of a table of images before those of the classes."""

WINDOW_COLUMNS: Final = ("tile", "scene", "row", "column", "height", "width", "split", "kept")
"""Columns of a table of windows before those of the classes; `tile` and `kept` are optional."""

TOO_SMALL: Final = "too_small"
"""Optional column of a table of windows: the tags of classes that are too small to learn from, see
`dataset.filter`."""

SHOWS_NONE: Final = "shows_none"
"""Optional column of a table of windows: 1 for one that is known to show none of the classes. Others without
tags are not decided, or their mask has no class."""

OPTIONAL_COLUMNS: Final = (TOO_SMALL, SHOWS_NONE)
"""Columns of a table of windows that stage labels adds where they are needed."""

UNNAMED: Final = re.compile(r"Unnamed: \d+")
"""Name that pandas gives a column without one, which readers of tables leave out."""

EMPTY: Final = ("nan", "nat", "na", "<na>", "n.a.", "none", "null", "-", "--", "\u2013", "\u2014", "?")
"""What programs and people write for an empty cell, in lower case."""

INVISIBLE: Final = "\u115f\u1160\u3164\uffa0\u2800"
"""Letters and symbols that look like blanks: fillers of Hangul, and a Braille cell without dots."""

JOINERS: Final = "\u200c\u200d"
"""Invisible characters that several scripts and emoji need within a name."""

LINE_BREAKERS: Final = frozenset({"Cc", "Zl", "Zp"})
"""Unicode categories of control characters and line separators, which lists of files and GIS cannot hold."""

FORMULA_ERROR: Final = re.compile(r"#(?!\d)(?:[^\Wa-z]|[/¡¿])+[!?]|#\w/\w|#NV|Err:\d+")
"""What spreadsheets of any language show for a formula without a value."""

_SIGNS: Final = "%&#@*!?"
"""Punctuation with a meaning of its own; the rest is as good as a blank."""

_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb"  # Cyrillic
    "\u03b1\u03bf\u03bd\u03b9\u03ba\u03c4\u03c5\u03c7\u03c1",  # Greek
    "aeopcyxijsdhaoviktuxp",
)
"""Maps letters of other alphabets to the Latin letters that they look like."""


def normal_form(text: str) -> str:
    """The text without surrounding blanks, in Unicode form NFC: macOS stores accents decomposed."""
    return unicodedata.normalize("NFC", text).strip()


def hidden_letter(name: str) -> str:
    """The first invisible character of a name that no script needs, as U+200B; empty if there is none."""
    hidden = (one for one in name if one in INVISIBLE or unicodedata.category(one) == "Cf")
    return next((f"U+{ord(one):04X}" for one in hidden if one not in JOINERS), "")


def check_name(name: str, what: str) -> str:
    """Refuses a name that cannot be a file name, or is not what it looks like.

    Args:
        name: The name in normal form.
        what: Owner of the name, for the error message, e.g. `tags.csv, line 3: the image`.

    Raises:
        UserError: Nothing of it is visible, it begins with a dot, has surrounding blanks, is the error of a
            formula, or contains a path separator, a line separator, a control character or an invisible one.
    """
    kinds = {letter: unicodedata.category(letter) for letter in name}
    refused = {*LINE_BREAKERS, "Cs"}  # Cs: bytes that are not UTF-8
    wrong = [letter for letter in name if letter in "/\\" or kinds[letter] in refused]
    reason = "" if any(kind[0] in "LNPS" for kind in kinds.values()) else "is empty"
    if hidden := hidden_letter(name):
        reason = f"has the invisible character {hidden} in it"
    if wrong:
        reason = f"has {wrong[0]!r} in it"
    if FORMULA_ERROR.fullmatch(name):
        reason = "is the error of a formula"
    if name.startswith("."):
        reason = reason or "begins with a dot"
    if name != name.strip():
        reason = reason or "has blanks around it"
    if reason:
        raise UserError(f"{what} {name!r} {reason}: give it another name")
    return name


def check_class(name: str, what: str) -> str:
    """Refuses an invalid class name; see `check_name`.

    Raises:
        UserError: It is too long, contains a separator of tags, or is the name of another column of a table
            of tags: of images or of windows, since stage labels makes a table of windows of every table.
    """
    check_name(name, what)
    if len(name) > LONGEST:
        raise UserError(f"{what} {name[:20]!r}... needs a name of 1 to {LONGEST} characters")
    if wrong := [character for character in (*SEPARATORS, ",") if character in name]:
        raise UserError(
            f"{what} {name!r} cannot have {wrong[0]} in it: separate tags by {SEPARATORS[0]}, as in road;tree"
        )
    if name.casefold() in (*IMAGE_COLUMNS, *WINDOW_COLUMNS, *OPTIONAL_COLUMNS) or UNNAMED.fullmatch(name):
        raise UserError(f"{what} {name!r} is a column of tables of tags: give it another name")
    return name


def check_classes(counts: Mapping[str, int], where: str, *, typed: bool) -> None:
    """Refuses class names that are nearly equal, which probably mean the same class.

    Args:
        counts: Number of rows with each class.
        where: The table, for the error message.
        typed: Whether the names were listed deliberately, as columns or by `dataset.classes`: then names that
            differ in one letter are accepted.

    Raises:
        UserError: Two differ only in case, accents, blanks, `-` and `_` or zeros of a number, or in one
            letter where one of them is rare.
    """
    for first, second in combinations(counts, 2):
        same = bare_name(first) == bare_name(second)
        typo = not typed and min(counts[first], counts[second]) <= RARE and max(len(first), len(second)) > 3
        if not same and not (typo and _one_letter(first, second)):
            continue
        rows = f"{first!r} ({counts[first]} rows) and {second!r} ({counts[second]} rows)"
        remedy = (
            "write one of them" if same else "correct it, or type 'dataset.classes=[...]' if both are meant"
        )
        how = "only in how they are written" if same else "in one letter"
        raise UserError(f"{where}: the classes {rows} differ {how}: {remedy}")


def few_images(counts: Mapping[str, int]) -> list[str]:
    """A line naming the classes of `RARE` images or fewer, if any, from the images that train by class."""
    few = [f"{name} ({count})" for name, count in counts.items() if count <= RARE]
    return [f"no more than {RARE} images to train on: {', '.join(few)}"] if few else []


def near_names(names: Sequence[str]) -> list[str]:
    """A line for each pair of classes that `check_classes` accepts and that differ in one letter."""
    return [
        f"the classes {first!r} and {second!r} differ in one letter: correct the table if they are one, or "
        "type 'dataset.classes=[...]' if both are meant"
        for first, second in combinations(names, 2)
        if _one_letter(first, second)
    ]


def bare_name(name: str) -> str:
    """A name without accents, case, blanks and punctuation; numbers as 1 for 01 and 1.0."""
    letters = unicodedata.normalize("NFKD", name).casefold().translate(_LOOKALIKES)
    letters = re.sub(r"(?<=\w)[\u0300-\u036f]+|[\u2212\ufe00-\ufe0f]", "", letters)  # accents; a minus sign
    letters = re.sub(r"(?<![\d.])0+(?=\d)", "", letters)
    letters = re.sub(r"(?<![\d.])(\d+)\.0+(?![\d.])", r"\1", letters)
    letters = re.sub(r"(?<=\d)\.(?=\d)", "point", letters)
    return "".join(
        letter for letter in letters if unicodedata.category(letter)[0] in "LNM" or _is_sign(letter)
    )


def _is_sign(letter: str) -> bool:
    """Whether a character that is not a letter makes another name, as in C and C++."""
    return letter in _SIGNS or unicodedata.category(letter)[0] == "S"


def _one_letter(first: str, second: str) -> bool:
    """Whether two names differ by one inserted, deleted or changed letter, or by two swapped neighbours.

    Digits and signs do not count: names such as class1 and class2, or <10 and >10, are different.
    """
    short, long = sorted((first.casefold(), second.casefold()), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next(
        (at for at, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short)
    )
    pair = long[start : start + 2]
    if short == long[:start] + pair[::-1] + long[start + 2 :]:
        return pair.isalpha()
    rest = short[start + 1 :] if len(short) == len(long) else short[start:]
    changed = long[start : start + 1] + short[start : start + 1]
    return rest == long[start + 1 :] and not any(letter.isdigit() or _is_sign(letter) for letter in changed)
