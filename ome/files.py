"""Atomic writing: every file is written under a temporary name in its folder and renamed when complete."""

import csv
import errno
import json
import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ome.errors import UserError

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
NO_ACCESS: Final = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def disk_fault(error: BaseException, folder: Path | None = None) -> str | None:
    """A message for a full or read-only disk, a missing permission, or a name that is not UTF-8.

    Args:
        error: The error; its causes are searched too.
        folder: Folder to name in the message; None for the file that the error names.

    Returns:
        What is wrong, where, and what to do; None for any other error.
    """
    # A UserError about a missing permission already has a message of its own.
    numbers = NO_ROOM if isinstance(error, UserError) else (*NO_ROOM, *NO_ACCESS)
    unnamed = "the folder of the run"
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UnicodeEncodeError) and seen.reason.startswith("surrogates"):
            line = (
                seen.object[: seen.start].rpartition("\n")[2] + seen.object[seen.start :].partition("\n")[0]
            )
            name = line.encode(errors="surrogateescape")
            return f"a name is not in UTF-8 ({name!r}): rename the file or folder"
        filename = getattr(seen, "filename", None)
        for number in (*numbers, *([errno.ENOENT] if _makes_folder(seen) else [])):
            reason = os.strerror(number)
            # GDAL and torch report in words.
            if not (isinstance(seen, OSError) and seen.errno == number) and reason not in str(seen):
                continue
            if number in NO_ROOM:
                remedy = "free some space; the same command resumes where it stopped"
                return f"cannot write to {folder or filename or unnamed} ({reason}): {remedy}"
            remedy = "choose other folders with output=... and scenes=..., or get access to it"
            if number == errno.ENAMETOOLONG:
                remedy = "give the scene, image or run a shorter name"
            return f"cannot read or write {filename or folder or unnamed} ({reason}): {remedy}"
        seen = seen.__cause__ or seen.__context__
    return None


def _makes_folder(error: BaseException) -> bool:
    """Whether a folder could not be created, as in /proc; other missing files are not errors of the disk."""
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, FileNotFoundError) and frames[-1:] in (["mkdir"], ["makedirs"])


def memory_fault(error: BaseException) -> str | None:
    """A message for an error caused by lack of memory, of the machine or a GPU; None for any other error."""
    reason = str(error).strip().partition("\n")[0]
    words = ("out of memory", "can't allocate memory")  # of torch, on a GPU and on a CPU
    if not isinstance(error, MemoryError) and not any(word in reason for word in words):
        return None
    return (
        f"out of memory ({reason}): lower stage.cam.batch, segmenter.recipe.batch, prediction.batch or "
        "dataset.tile.size; the same command resumes where it stopped"
    )


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the same folder and renames it to `path` when the block succeeds.

    The temporary name keeps the suffix, since writers choose their format by it. When the block raises,
    the temporary file is removed and `path` is left as it was. The content is synced to disk before the
    rename, since a power cut could otherwise leave an empty file of that name.

    Args:
        path: The file to write.
        durable: Sync the new name to disk as well, for files that cannot be computed again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        if path.exists():  # keeps the permissions
            shutil.copymode(path, temporary)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Whether a path is a file.

    Raises:
        UserError: It is a link whose target does not exist, so that its file would be left out of a folder.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(
            f"{path} is a link to a file that does not exist: restore the file, or delete the link"
        )
    return path.is_file()


def remove_temporaries(folder: Path) -> None:
    """Removes temporary files of processes killed within `atomic_path`; no process may be writing there."""
    for path in folder.rglob(".*"):
        if re.fullmatch(r"\..+\.\d+(\.[^.]*)?", path.name) and path.is_file():
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


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON has no static type
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(
    path: Path, header: Iterable[str], rows: Iterable[Iterable[object]], *, durable: bool = False
) -> None:
    """Writes a CSV table with one header row, atomically; `durable` as in `atomic_path`."""
    with (
        atomic_path(path, durable=durable) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow([_harmless(cell) for cell in header])
        writer.writerows([_harmless(cell) for cell in row] for row in rows)


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def _harmless(cell: object) -> object:
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
    """Reads a CSV table that `write_csv` wrote as one dictionary a row."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    header, *body = [[plain_cell(cell) for cell in row] for row in rows] or [[]]
    return [dict(zip(header, row, strict=True)) for row in body]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a compressed `.npz` atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Reads an `.npz` without ever unpickling."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def save_atomically(path: Path, save: Callable[[Path], object]) -> None:
    """Calls `save(temporary)` and moves the result to `path`."""
    with atomic_path(path) as temporary:
        save(temporary)
