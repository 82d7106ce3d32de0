"""Removes files that a power cut has emptied or truncated from an interrupted stage's folder."""

import json
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from PIL import Image

from ome.damage import checked_end
from ome.geo.raster import check_written


def remove_broken(folder: Path) -> str | None:
    """Removes incomplete files from a partial folder, and files that may have been made from them.

    The latter are those written after them, those in or below the same folder, and those in folders of the
    same name, since a tile has files in several folders.

    Returns:
        Name of the first incomplete file; None if all are complete.
    """
    inside = (path for path in folder.rglob("*") if "logs" not in path.relative_to(folder).parts)
    files = [path for path in inside if path.is_file() and not path.name.startswith(".")]
    written = {path: path.stat().st_mtime_ns for path in files}
    broken = sorted((path for path in files if not is_whole(path)), key=lambda path: written[path])
    for path in files if broken else ():
        related = (path.is_relative_to(bad.parent) or path.parent.name == bad.parent.name for bad in broken)
        if written[path] >= written[broken[0]] or any(related):
            path.unlink()
    return str(broken[0].relative_to(folder)) if broken else None


def is_whole(path: Path) -> bool:
    """Whether a file is complete, checked by its format; an empty file never is."""
    try:
        if check := _CHECKS.get(path.suffix.lower()):
            check(path)
    except Exception:  # noqa: BLE001 - damaged files raise all kinds of errors
        return False
    return path.stat().st_size > 0


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError(path)


def _check_png(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _check_database(path: Path) -> None:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
        if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise ValueError(path)


_CHECKS: Final[dict[str, Callable[[Path], object]]] = {
    **dict.fromkeys((".npz", ".pt", ".pt2", ".ckpt"), _check_zip),
    # Not read_text, which takes a lone CR for the end of a line.
    **dict.fromkeys((".csv", ".md", ".qml"), lambda path: checked_end(path.read_bytes().decode())),
    ".gpkg": _check_database,
    ".png": _check_png,
    ".tif": check_written,
    ".json": lambda path: json.loads(path.read_bytes()),
}
