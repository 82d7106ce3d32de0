"""Memory that is freed stays with the process for its next step."""

import ctypes
import os
from collections.abc import Mapping
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Names of glibc's `mallopt(3)`."""
LARGEST: Final = 2**30
"""Bytes up to which a tensor is taken from memory that was freed before."""


def keep_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Lets glibc reuse freed memory, unless the user has chosen otherwise.

    By default it returns large tensors to the system, which clears every page again when the next step needs
    it: a quarter to a half of the time of a training step or a prediction in float32 on a CPU. The
    peak of the memory stays about the same; between steps the process does not shrink.

    Args:
        environment: The variables of the process.

    Returns:
        Whether it was set: not without glibc, and not where `MALLOC_...` or `GLIBC_TUNABLES` is set.
    """
    chosen = "GLIBC_TUNABLES" in environment or any(key.startswith("MALLOC_") for key in environment)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return False
    return not chosen and all((mallopt(M_MMAP_THRESHOLD, LARGEST), mallopt(M_TRIM_THRESHOLD, -1)))
