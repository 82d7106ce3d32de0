"""Cells of a workbook's sheet that show something else than is read: hidden, filtered out, merged."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final
from xml.etree import ElementTree as ET

from ome.errors import UserError, few
from ome.progress import say_once

_UNSEEN: Final = 1e-3
"""Height or width below which nothing is shown."""


def check_shown(path: Path, sheet: IO[bytes], lines: Sequence[Sequence[str]]) -> None:
    """Refuses merged cells, and prints which rows and columns of a table are hidden, in a line each.

    Args:
        path: The workbook.
        sheet: The XML of the sheet.
        lines: Its cells; those of the first line are the names of the columns.

    Raises:
        UserError: Cells are merged: only the first has a value, though it is shown for all.
    """
    rows, columns, merged = _marked(sheet)
    for span in merged:
        if any(any(cells) for cells in lines[int(re.findall(r"\d+", span)[0]) - 1 :]):  # not below the table
            raise UserError(f"{path}: the cells {span} are merged: split them, and fill each of them")
    body = [number for number, cells in enumerate(lines, start=1) if number > 1 and any(cells)]
    named = [(place, name) for place, name in enumerate(lines[0] if lines else (), start=1) if name]
    for what, count, items in (
        ("rows", len(body), [number for number in body if number in rows]),
        ("columns", len(named), [name for place, name in named if any(place in span for span in columns)]),
    ):
        if items:
            say_once(
                f"{path}: {len(items)} of {count} {what} are hidden or filtered out, {few(items)}, and are "
                f"read like the rest: delete them if they shall not count, else show all {what} and save",
                "bold yellow",
            )


def _marked(sheet: IO[bytes]) -> tuple[set[int], list[range], list[str]]:
    """Numbers of the hidden rows, ranges of those of hidden columns, from 1, and merged cells, as C2:C4."""
    rows: set[int] = set()
    columns: list[range] = []
    merged: list[str] = []
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
        elif kind == "mergeCell":
            merged.append(node.get("ref", ""))
    return rows, columns, merged


def _is_hidden(node: ET.Element, size: str) -> bool:
    """Whether a row or column is marked as hidden, or has no height or width."""
    return node.get("hidden") in {"1", "true"} or float(node.get(size, 1)) < _UNSEEN
