"""What an interrupted stage left: files that a power cut emptied or cut short are no files."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from PIL import Image

from ome.geo.raster import check_written


def remove_broken(folder: Path) -> str | None:
    """Removes from a partial folder what is not whole, and what may have been made from it.

    That is what was written after it, what lies in or below its folder, and, as a tile has files in several
    folders, what lies in folders of the same name.

    Returns:
        Name of the first file that was not whole; None where all are.
    """
    inside = (path for path in folder.rglob("*") if "logs" not in path.relative_to(folder).parts)
    files = [path for path in inside if path.is_file() and not path.name.startswith(".")]
    written = {path: path.stat().st_mtime_ns for path in files}
    broken = sorted((path for path in files if not is_whole(path)), key=lambda path: written[path])
    for path in files if broken else ():
        beside = (path.is_relative_to(one.parent) or path.parent.name == one.parent.name for one in broken)
        if written[path] >= written[broken[0]] or any(beside):
            path.unlink()
    return str(broken[0].relative_to(folder)) if broken else None


def is_whole(path: Path) -> bool:
    """Whether a file can be read to its end, as far as its kind tells; an empty one is never whole."""
    try:
        if check := _CHECKS.get(path.suffix.lower()):
            check(path)
    except Exception:  # noqa: BLE001 - readers trip over damaged files in many ways
        return False
    return path.stat().st_size > 0


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError(path)


def _check_png(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _check_json(path: Path) -> None:
    json.loads(path.read_bytes())


def _check_lines(path: Path) -> None:
    if not path.read_bytes().endswith(b"\n"):
        raise ValueError(path)


_CHECKS: Final[dict[str, Callable[[Path], None]]] = {
    **dict.fromkeys((".npz", ".pt", ".pt2", ".ckpt"), _check_zip),
    ".csv": _check_lines,
    ".png": _check_png,
    ".tif": check_written,
    ".json": _check_json,
}
