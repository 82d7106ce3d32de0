"""Whether memory that is freed stays with the process, where its allocator is glibc's."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Names of glibc's `mallopt(3)`."""
KEPT: Final = 2**30
"""Bytes up to which tensors are put into memory that was freed before."""
USUAL: Final = 2**25
"""What glibc sets itself once such tensors were freed; it trims its memory from twice as many bytes on."""


class _Process:
    """What this process has set."""

    kept = False


def keep_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Keeps freed memory, unless the user has chosen otherwise.

    By default glibc returns that of large tensors to the system, which clears every page again for the next
    one: up to a third of the time of a prediction in float32. Trainings free tensors in another order, and
    would need half as much memory again: see `returned_memory`.

    Args:
        environment: The variables of the process.

    Returns:
        Whether it is kept: not without glibc, and not where `MALLOC_...` or `GLIBC_TUNABLES` is set.
    """
    chosen = "GLIBC_TUNABLES" in environment or any(key.startswith("MALLOC_") for key in environment)
    _Process.kept = not chosen and _set(KEPT, -1)
    return _Process.kept


@contextmanager
def returned_memory() -> Iterator[None]:
    """Returns freed memory to the system as usual, within the context and if `keep_memory` changed it."""
    kept = _Process.kept and _set(USUAL, 2 * USUAL)
    try:
        yield
    finally:
        if kept:
            _set(KEPT, -1)


def _set(mapped: int, trimmed: int) -> bool:
    """Sets from how many bytes on memory is mapped and trimmed; False without glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, mapped) and mallopt(M_TRIM_THRESHOLD, trimmed))
