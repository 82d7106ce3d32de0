"""Atomic writing: every file is written under a temporary name in its folder and renamed when complete."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ome.damage import DamagedError, checked_end, checked_form, named_if_damaged
from ome.errors import UserError

NOTING: Final[list[Callable[[Path], None]]] = []
"""Called with the path of each file before it is written, by all threads."""

_TEMPORARY: Final = re.compile(r"\.(.+)\.\d+(\.[^.]*)?")
"""Name of a temporary file of `atomic_path`: the stem and the suffix of its final name are groups."""


def noted(path: Path) -> None:
    """Says that a file, or everything in a folder, is about to be written by other means than this module."""
    for note in NOTING:
        note(path)


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the same folder and renames it to `path` when the block succeeds.

    The temporary name keeps the suffix, since writers choose their format by it. When the block raises,
    the temporary file is removed and `path` is left as it was. The content is synced to disk before the
    rename, since a power cut could otherwise leave an empty file of that name.

    Args:
        path: The file to write.
        durable: Sync the new name to disk as well, for a user's file that one process at a time writes;
            its temporary name is always the same, so that the next process replaces what a killed one left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{'ome-unsaved' if durable else os.getpid()}{path.suffix}")
    noted(path)
    try:
        temporary.unlink(missing_ok=True)
        yield temporary
        sync(temporary)
        if path.exists():  # keeps the permissions
            _keep_access(path, temporary)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _keep_access(path: Path, replacement: Path) -> None:
    """Gives a file the owner, group and mode of the one that it will replace, as far as this user may."""
    before = path.stat()
    for owner in (before.st_uid, -1):
        with suppress(OSError):
            os.chown(replacement, owner, before.st_gid)
            break
    shutil.copymode(path, replacement)


def is_file(path: Path) -> bool:
    """Whether a path is a file.

    Raises:
        UserError: It is a link to nothing, so that its file would be left out of a folder, or a pipe, a
            socket or a device, which a reader would wait for.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to a file that does not exist: restore it, or delete the link")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is not a file, but a named pipe, a socket or a device: delete or rename it")
    return path.is_file()


def final_path(path: Path) -> Path:
    """The path that a temporary file of `atomic_path` would get; the path itself for any other file."""
    match = _TEMPORARY.fullmatch(path.name)
    return path.with_name(match[1] + (match[2] or "")) if match else path


def remove_temporaries(folder: Path) -> None:
    """Removes temporary files of processes killed within `atomic_path`; no process may be writing there."""
    for path in folder.rglob(".*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Writes indented JSON atomically; keys keep their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, form: type = dict) -> Any:  # noqa: ANN401 - JSON has no static type
    """Reads a JSON file that `write_json` wrote.

    Raises:
        DamagedError: It is not JSON of that type.
    """
    with named_if_damaged(path):
        return checked_form(json.loads(path.read_text(encoding="utf-8")), form)


def read_json_if_whole(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if the file does not exist, cannot be read, or is something else."""
    try:
        value: dict[str, Any] = read_json(path)
    except (OSError, DamagedError):
        return None
    return value


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV table with one header row, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([harmless(cell) for cell in row] for row in (header, *rows))


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def harmless(cell: object) -> object:
    """Prefixes a text that looks like a formula with a quote, so that a spreadsheet does not evaluate it."""
    if not (isinstance(cell, str) and len(cell) > 1 and cell.lstrip("'").startswith(_FORMULA)):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def plain_cell(cell: str) -> str:
    """A cell without the quote that `write_csv` puts before a text that looks like a formula."""
    quoted = cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA)
    return cell[1:] if quoted else cell


def plain_text(content: bytes, name: object) -> str:
    """The text of a user's file, with or without a byte order mark.

    Args:
        content: The bytes of the file.
        name: Name of the file in the error message.

    Raises:
        UserError: It is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not text in UTF-8 ({error}): save it as UTF-8") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """Reads a CSV table that `write_csv` wrote as one dictionary a row.

    Raises:
        DamagedError: It is not such a table, or its last line is cut off.
    """
    with named_if_damaged(path):
        text = checked_end(path.read_bytes().decode("utf-8"))
        rows = csv.reader(io.StringIO(text, newline=""))
        header, *body = [[plain_cell(cell) for cell in row] for row in rows]
        return [dict(zip(header, row, strict=True)) for row in body]


def save_atomically(path: Path, save: Callable[[Path], object]) -> None:
    """Calls `save(temporary)` and moves the result to `path`."""
    with atomic_path(path) as temporary:
        save(temporary)
