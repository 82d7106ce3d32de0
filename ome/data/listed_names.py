"""Class names that exist only because of how the tags of an image are written in one cell."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from ome.errors import UserError

_WORDS: Final = r"\b(?:and|und|et|y|e|plus|with|mit|or|oder|ou|o)\b"

_BETWEEN: Final = re.compile(rf"(?:[\W_]|{_WORDS})*", re.IGNORECASE)
"""What people write between tags: words, and any signs, also commas and points of other alphabets."""

_SEPARATORS: Final = re.compile("[\uff1b\uff5c\uff0c\u3001\uff64\u060c\u061b]")
"""Commas, semicolons and bars of other scripts: Chinese, Japanese and Arabic ones."""

_JOINTS: Final = re.compile(rf"(?:[\s+&-]|{_WORDS})+", re.IGNORECASE)
"""What joins the words of a name, or tags; not `_`, by which many write a name of several words."""

_SCORE: Final = re.compile(r".*\w\s*(?:[:=]\s*\d*[.,]?\d+\s*%?|\(\s*(?:\d*[.,]\d+|\d+\s*%)\s*\))")
"""A name with a score, such as `field:0.9`, `field=1` and `field (90%)`."""

_NEGATION: Final = re.compile(
    r"(?P<sign>[!~\u00ac])?(?:(?:no|not|kein|keine)[\s_-])?\s*(?P<name>.*)", re.IGNORECASE
)

_QUOTES: Final = "'\"`\u00b4\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"


def check_listed(names: Sequence[str], where: str) -> None:
    """Refuses classes that are several tags, a tag with a score, a negation or a quotation.

    `names` are those that the table `where` lists, and nobody has named otherwise.

    Raises:
        UserError: One of them is not a plain name, or consists of the names of others.
    """
    for name in names:
        if fault := next(_faults(name, names), ""):
            raise _refused(name, fault, where)


def check_joined(names: Sequence[str], where: str) -> None:
    """Refuses classes that are several tags each, of which none need be a class by itself.

    They share most of their words, and one of the words ends a name and begins another, as in `road tree` and
    `tree water`. It does not among `dense forest`, `open forest`, `dense scrub` and `open scrub`.

    Args:
        names: The classes of a table without a row of two tags, which nobody has named otherwise.
        where: The table, for the error message.

    Raises:
        UserError: Most of the words recur.
    """
    words = {name: _words(name) for name in names}
    several = {name: parts for name, parts in words.items() if len(parts) > 1}
    counts = Counter(part for parts in words.values() for part in set(parts))
    recurring = {part for part, count in counts.items() if count > 1}
    joined = [name for name, parts in several.items() if recurring.issuperset(parts)]
    turning = {parts[0] for parts in several.values()} & {parts[-1] for parts in several.values()}
    if joined and turning and 2 * len(recurring) > len(counts):
        raise _refused(joined[0], _consists(several[joined[0]]), where)


def _words(name: str) -> list[str]:
    """The words of a name that have a letter: 10-20 and 20-30 are ranges."""
    return [part for part in _JOINTS.split(name.casefold()) if any(map(str.isalpha, part))]


def _refused(name: str, fault: str, where: str) -> UserError:
    return UserError(
        f"{where}: the class {name!r} {fault}; if it is one class, name all by 'dataset.classes=[...]'"
    )


def _consists(parts: Sequence[str]) -> str:
    return f"consists of {' and '.join(parts)}: separate tags by ; as in {';'.join(parts)}"


def _faults(name: str, names: Sequence[str]) -> Iterator[str]:
    if parts := _parts(name, [other for other in names if other != name]):
        yield _consists(parts)
    if letter := _SEPARATORS.search(name):
        yield f"has {letter[0]} in it: separate tags by ;"
    if _SCORE.fullmatch(name):
        yield "has a number as a score would: a tag says only that a class is there, so leave out numbers"
    negation = _NEGATION.fullmatch(name)
    if negation and (negation["sign"] or negation["name"] in {*names} - {name}):
        yield "looks like a negation: leave out the tags of classes that are not there"
    if name[0] in _QUOTES or name[-1] in _QUOTES:
        yield "begins or ends with a quotation mark: leave out the quotation marks"


def _parts(name: str, others: Sequence[str]) -> list[str]:
    """The other classes that a name consists of, in order; empty unless there are two or more and no rest."""
    rest, parts = name, dict[int, str]()
    for other in sorted(others, key=len, reverse=True):
        pattern = rf"(?<![^\W_]){re.escape(other)}(?![^\W_])"
        for match in re.finditer(pattern, rest, re.IGNORECASE):
            parts[match.start()] = other
            rest = rest[: match.start()] + " " * len(match[0]) + rest[match.end() :]
    if len(parts) < 2 or not _BETWEEN.fullmatch(rest):
        return []
    return [parts[place] for place in sorted(parts)]
