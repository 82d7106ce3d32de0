"""Class names that exist only because of how the tags of an image are written in one cell."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from ome.errors import UserError

_BETWEEN: Final = re.compile(r"(?:[\W_]|\b(?:and|und|et|y|e|plus|with|mit|or|oder|ou|o)\b)*", re.IGNORECASE)
"""What people write between tags: words, and any signs, also commas and points of other alphabets."""

_SEPARATORS: Final = re.compile("[\uff1b\uff5c\uff0c\u3001\uff64\u060c\u061b]")
"""Commas, semicolons and bars of other scripts: Chinese, Japanese and Arabic ones."""

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
            raise UserError(
                f"{where}: the class {name!r} {fault}; if it is one class, name all by "
                "'dataset.classes=[...]'"
            )


def _faults(name: str, names: Sequence[str]) -> Iterator[str]:
    if parts := _parts(name, [other for other in names if other != name]):
        yield f"consists of {' and '.join(parts)}: separate tags by ; as in {';'.join(parts)}"
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
