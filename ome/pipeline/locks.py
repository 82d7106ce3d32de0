"""File locks, so that two runs never compute the same result at the same time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.progress import console


class InUseError(UserError):
    """Another process holds the lock."""


@contextmanager
def locked(
    path: Path, what: str, *, wait: bool, remedy: str = "wait for it, or give this one its own name=..."
) -> Iterator[None]:
    """Holds a lock while the block runs; the system releases it when the process ends in any way.

    Args:
        path: The lock file; it is created, and an empty file remains.
        what: What the lock protects, for messages.
        wait: Print a line and wait if another process holds it.
        remedy: What to do if another process holds it, and `wait` is false.

    Raises:
        InUseError: Another process holds it, and `wait` is false.
        UserError: The lock file cannot be written.
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
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not wait:
                raise InUseError(f"another process is working on {what}: {remedy}") from error
            console.print(f"waiting for another run that is computing {what}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
