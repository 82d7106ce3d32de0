"""CAMs on disk: one file per tile with the tagged classes in half precision, stored as pixel differences.

CAMs of other programs come in other file formats, which `cam_files` lists.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.data.array_files import read_arrays, write_arrays
from ome.data.names import normal_form
from ome.errors import UserError
from ome.faults import is_no_damage
from ome.files import is_file
from ome.geo.beside import check_pipes

SUFFIXES: Final = (".npy", ".npz", ".tif", ".tiff")
"""Suffixes of CAM files of other programs."""


def write_cams(path: Path, cams: NDArray[np.float32], tags: NDArray[np.uint8]) -> None:
    """Writes the CAMs of a tile atomically.

    Args:
        path: Path of the file.
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
        stack = np.zeros((num_classes, *cams.shape[1:]), dtype=np.float32)
        stack[stored["classes"]] = cams
    except (OSError, ValueError, LookupError, TypeError) as error:
        if is_no_damage(error):
            raise
        raise UserError(
            f"cannot read the CAMs {path}: run its stage (cam or affinity) again with force=true"
        ) from error
    return stack


def cam_files(folder: Path) -> dict[str, Path]:
    """The CAM files of another program in a folder and its subfolders, by name without suffix.

    Raises:
        UserError: The folder is missing or holds no such file, or two files have the same name; or one is a
            link to nothing or a pipe, or a pipe lies beside it.
    """
    if not folder.is_dir():
        raise UserError(f"stage.pseudo.cams={folder} is neither cam, affinity nor a folder: check the path")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and is_file(path):
            check_pipes(path)
            name = normal_form(path.stem)
            if name in files:
                raise UserError(f"{files[name]} and {path} are maps of one image: remove one of them")
            files[name] = path
    if not files:
        raise UserError(f"stage.pseudo.cams={folder} holds no maps: give {', '.join(SUFFIXES)} files")
    return files


def differences(maps: NDArray[np.float16]) -> NDArray[np.uint16]:
    """Replaces the bits of each value of (K, H, W) maps by their difference to the left and upper neighbours.

    The bit patterns of non-negative floats have the order of the numbers, so smooth maps give small
    differences, which compress to a third. It is lossless, since the arithmetic is modulo 2^16.
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
