"""File locks, so that two runs never compute the same result at the same time."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.progress import console


class InUseError(UserError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, what: str, *, wait: bool, remedy: str = "wait for it") -> Iterator[None]:
    """Holds a lock while the block runs; the system releases it when the process ends in any way.

    Args:
        path: The lock file; it is created, and an empty file remains.
        what: What the lock protects, for messages.
        wait: Print a line and wait if another process holds it.
        remedy: What to do if another process holds it, and `wait` is false.

    Raises:
        InUseError: Another process holds it, and `wait` is false.
        UserError: The lock file cannot be written, or its file system has no locks.
    """
    if not is_rank_zero():
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a", encoding="utf-8")  # not "w": it may be somebody's file
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place for {what}") from error
    with opened as stream:
        if not _try_lock(stream, path):
            if not wait:
                raise InUseError(f"another process is working on {what}: {remedy}")
            console.print(f"waiting for another run that is computing {what}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _try_lock(stream: TextIO, path: Path) -> bool:
    """Takes the lock of an open file; returns whether no other process holds it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        raise UserError(
            f"{path.parent} is on a file system without file locks ({error.strerror}): choose another place, "
            "e.g. output=... and scenes=..., or mount it with locks"
        ) from error
    return True
