"""A user's CSV file: read as rows of text, and written again as it was."""

import codecs
import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from ome.errors import UserError
from ome.files import atomic_path, harmless

DELIMITERS: Final = (",", ";", "\t")
"""Column separators: spreadsheets write semicolons where the decimal sign is a comma."""

ENCODINGS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins as that of UTF-16
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Encodings other than UTF-8 by the byte order marks of their files."""

_LINE_END: Final = re.compile(r"\r\n?|\n")


class Style(NamedTuple):
    """How a file is written: without the same one, the user's spreadsheet may not open it as a table again.

    Attributes:
        delimiter: Separator of the columns.
        start: What is before the header: a byte order mark, and Excel's line `sep=;`.
        line_end: End of the header's line.
    """

    delimiter: str = ","
    start: str = ""
    line_end: str = "\r\n"


def read_user_csv(path: Path) -> tuple[list[tuple[int, list[str]]], Style]:
    """Line number and cells of each row, and how the file is written.

    The separator is the one that the file states, or the most frequent one of `DELIMITERS` in its first line.

    Raises:
        UserError: The file is damaged or in another encoding.
    """
    content = path.read_bytes()
    if encoding := _other_encoding(content):
        raise UserError(f"{path} is in {encoding}: save it as CSV UTF-8")
    try:
        # Spreadsheets put a byte order mark before the first column's name.
        text = content.decode("utf-8-sig")
        start, delimiter = "\ufeff" * content.startswith(codecs.BOM_UTF8), _delimiter(text)
        if mark := re.match(r"sep=(.)(?:\r\n?|\n)", text):  # Excel's own way to say it
            start, delimiter, text = start + mark[0], mark[1], text[mark.end() :]
        before = 1 if mark else 0
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows: list[tuple[int, list[str]]] = []
        last = 0
        for cells in reader:
            rows.append((before + last + 1, cells))
            last = reader.line_num
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}; save it as CSV UTF-8") from error
    end = _LINE_END.search(text)
    return rows, Style(delimiter, start, end[0] if end else Style().line_end)


def write_user_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]], style: Style) -> None:
    """Writes a table with one header row, atomically, and syncs it to the disk."""
    with (
        atomic_path(path, durable=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        stream.write(style.start)
        writer = csv.writer(stream, delimiter=style.delimiter, lineterminator=style.line_end)
        writer.writerows([harmless(cell) for cell in row] for row in (header, *rows))


def _other_encoding(content: bytes) -> str:
    """The encoding of a file that is not in UTF-8, by its mark or the zeros of its first letter or two."""
    marked = next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), "")
    return marked or {2: "UTF-16", 3: "UTF-32"}.get(content[:4].count(0), "")


def _delimiter(text: str) -> str:
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))
