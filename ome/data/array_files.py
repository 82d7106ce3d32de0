"""Files of numpy arrays, which are read without ever unpickling."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.errors import first_line
from ome.files import atomic_path


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a compressed `.npz` atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Reads an `.npz`, or the array of a `.npy` under an empty name, without ever unpickling.

    Raises:
        ValueError: It is damaged, or holds other things than arrays.
        OSError: It cannot be read.
    """
    try:
        if path.suffix.lower() == ".npy":
            return {"": np.lib.format.open_memmap(path, mode="r")}  # np.load would accept a renamed .npz
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damage raises errors of zipfile, zlib, tokenize and more
        raise ValueError(first_line(error) or type(error).__name__) from error


def read_array(path: Path) -> NDArray[Any]:
    """Reads the only array of an `.npy` or `.npz`; see `read_arrays`."""
    arrays = read_arrays(path)
    if len(arrays) != 1:
        raise ValueError(f"it holds {len(arrays)} arrays, {', '.join(arrays)}")
    return next(iter(arrays.values()))
