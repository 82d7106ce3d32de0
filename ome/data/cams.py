"""CAMs on disk: half precision, the tagged classes only, differences between pixels, one file a tile."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import read_arrays, write_arrays


def cam_path(folder: Path, tile: Tile) -> Path:
    """Where the CAMs of a tile lie."""
    return folder / tile.scene / f"{tile.name}.npz"


def write_cams(path: Path, cams: NDArray[np.float32], tags: NDArray[np.uint8]) -> None:
    """Writes the CAMs of a tile atomically.

    Args:
        path: See `cam_path`.
        cams: (C, H, W) in [0, 1]; maps of classes without a tag are not kept.
        tags: (C,) of 0 and 1.
    """
    classes = np.flatnonzero(tags).astype(np.uint8)
    write_arrays(path, {"differences": differences(cams[classes].astype(np.float16)), "classes": classes})


def read_cams(path: Path, num_classes: int) -> NDArray[np.float32]:
    """Reads the CAMs of a tile.

    Returns:
        (C, H, W) float32 in [0, 1]; 0 for classes without a tag.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        stored = read_arrays(path)
        cams = from_differences(stored["differences"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(
            f"cannot read the CAMs {path}: run its stage (cam or affinity) again with force=true"
        ) from error
    stack = np.zeros((num_classes, *cams.shape[1:]), dtype=np.float32)
    stack[stored["classes"]] = cams
    return stack


def differences(maps: NDArray[np.float16]) -> NDArray[np.uint16]:
    """Replaces each value of (K, H, W) maps by how its bits differ from its left and upper neighbours'.

    The bits of numbers that are not negative are in the order of the numbers, so that smooth maps leave small
    differences, which compress to a third. Nothing is lost: the arithmetic is modulo 2^16.
    """
    bits = maps.view(np.uint16)
    for axis in (1, 2):
        bits = np.diff(bits, axis=axis, prepend=np.uint16(0))
    return bits


def from_differences(bits: NDArray[np.uint16]) -> NDArray[np.float16]:
    """Undoes `differences`."""
    for axis in (2, 1):
        bits = np.cumsum(bits, axis=axis, dtype=np.uint16)
    return bits.view(np.float16)
