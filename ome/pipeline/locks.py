"""One run at a time makes a thing; who needs the same thing waits for it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.progress import console


class InUseError(UserError):
    """Another process is making the same thing."""


@contextmanager
def locked(path: Path, what: str, *, wait: bool) -> Iterator[None]:
    """Holds a lock while the block runs; it goes when the process does, however that ends.

    Args:
        path: The lock file; it is made, and stays behind empty.
        what: What the lock stands for, for the line that the user reads.
        wait: Wait where another process holds it, after one line that says so.

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
                raise InUseError(
                    f"another run is working on {what}: wait for it, or give this one its own name=..."
                ) from error
            console.print(f"waiting for another run that makes {what}", highlight=False)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
