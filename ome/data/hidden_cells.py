"""Rows and columns of a workbook's sheet that are not shown, e.g. filtered out: they are read like others."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final
from xml.etree import ElementTree as ET

from ome.errors import few
from ome.progress import say_once

_UNSEEN: Final = 1e-3
"""Height or width below which nothing is shown."""


def say_hidden(path: Path, sheet: IO[bytes], lines: Sequence[Sequence[str]]) -> None:
    """Prints which rows and columns of a table are hidden, in a line each.

    Args:
        path: The workbook.
        sheet: The XML of the sheet.
        lines: Its cells; those of the first line are the names of the columns.
    """
    rows, columns = _hidden(sheet)
    body = [number for number, cells in enumerate(lines, start=1) if number > 1 and any(cells)]
    named = [(place, name) for place, name in enumerate(lines[0] if lines else (), start=1) if name]
    for what, items in (
        ("rows", [number for number in body if number in rows]),
        ("columns", [name for place, name in named if any(place in span for span in columns)]),
    ):
        if items:
            say_once(
                f"{path}: {len(items)} {what} are hidden or filtered out, {few(items)}, and are read like "
                f"the rest: delete them if they shall not count, else show all {what} and save",
                "bold yellow",
            )


def _hidden(sheet: IO[bytes]) -> tuple[set[int], list[range]]:
    """Numbers of the hidden rows, and ranges of those of hidden columns, from 1."""
    rows: set[int] = set()
    columns: list[range] = []
    number = 0
    for _, node in ET.iterparse(sheet):  # noqa: S314 - openpyxl has parsed it before
        kind = node.tag.rpartition("}")[2]
        if kind == "row":
            number = int(node.get("r", number + 1))
            if _is_hidden(node, "ht"):
                rows.add(number)
            node.clear()
        elif kind == "col" and _is_hidden(node, "width"):
            columns.append(range(int(node.get("min", 0)), int(node.get("max", 0)) + 1))
    return rows, columns


def _is_hidden(node: ET.Element, size: str) -> bool:
    """Whether a row or column is marked as hidden, or has no height or width."""
    return node.get("hidden") in {"1", "true"} or float(node.get(size, 1)) < _UNSEEN
