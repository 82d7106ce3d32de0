"""Errors of the disk and of the memory, in one line each."""

import errno
import os
import re
import traceback
from pathlib import Path
from typing import Final

from ome.errors import UserError, one_line

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
NO_ACCESS: Final = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def is_no_damage(error: BaseException) -> bool:
    """Whether a file could not be read for want of memory, permission or a working disk: it may be whole."""
    return memory_fault(error) is not None or (
        isinstance(error, OSError) and error.errno in (*NO_ROOM, *NO_ACCESS)
    )


def disk_fault(error: BaseException, folder: Path | None = None) -> str | None:
    """A message for a full or read-only disk, a missing permission, or a name that is not UTF-8.

    Args:
        error: The error; its causes are searched too.
        folder: Folder to name in the message; None for the file that the error names.

    Returns:
        What is wrong, where, and what to do, on one line; None for any other error.
    """
    line = _disk_fault(error, folder)
    return line and one_line(line)


def _disk_fault(error: BaseException, folder: Path | None) -> str | None:
    # A UserError about a missing permission already has a message of its own.
    numbers = NO_ROOM if isinstance(error, UserError) else (*NO_ROOM, *NO_ACCESS)
    unnamed = "the folder of the run"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnicodeEncodeError) and cause.reason.startswith("surrogates"):
            line = (
                cause.object[: cause.start].rpartition("\n")[2]
                + cause.object[cause.start :].partition("\n")[0]
            )
            name = line.encode(errors="surrogateescape")
            return f"a name is not in UTF-8 ({name!r}): rename the file or folder"
        if "</torch_" in str(cause) or "out of shared memory" in str(cause):
            return (
                "the processes that load data have no shared memory left: type trainer.workers=0, or "
                "enlarge /dev/shm, e.g. by docker run --shm-size=8g"
            )
        filename = getattr(cause, "filename", None)
        if loop := re.fullmatch("Symlink loop from '(.*)'", str(cause)):  # of pathlib, before Python 3.13
            cause, filename = OSError(errno.ELOOP, os.strerror(errno.ELOOP)), loop[1]
        for number in (*numbers, *([errno.ENOENT] if _makes_folder(cause) else [])):
            reason = os.strerror(number)
            # GDAL and torch report in words.
            if not (isinstance(cause, OSError) and cause.errno == number) and reason not in str(cause):
                continue
            if number in NO_ROOM:
                remedy = "free some space; the same command resumes where it stopped"
                return f"cannot write to {folder or filename or unnamed} ({reason}): {remedy}"
            remedy = "get access to it, or choose other folders, e.g. output=... and scenes=... for results"
            if number == errno.ENAMETOOLONG:
                remedy = "give the scene, image or run a shorter name"
            return f"cannot read or write {filename or folder or unnamed} ({reason}): {remedy}"
        cause = cause.__cause__ or cause.__context__
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
        "dataset.tile.size; what does not depend on it is not computed again"
    )
