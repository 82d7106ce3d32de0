"""What lies beside a raster, looked at before GDAL opens the raster and these files with it."""

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

from rasterio.transform import Affine

from ome.errors import UserError
from ome.files import is_file

_OF_FOLDERS: Final = ("metadata.dim", "summary.txt")
"""Sidecars of every raster in a folder, in lower case, as satellites' products have them."""

_CLOCK_TICK: Final = 2 * 10**9
"""Nanoseconds that the coarsest clocks of file systems take for a step."""

_ERDAS: Final = b"EHFA_HEADER_TAG"
"""First bytes of an `.aux` of Erdas Imagine."""


def check_pipes(raster: Path) -> None:
    """Refuses pipes, sockets and devices beside a raster: GDAL waits for those that have a sidecar's name.

    Args:
        raster: The raster, not opened yet.

    Raises:
        UserError: There is one whose name starts as the raster's.
    """
    folder, changed = raster.parent, raster.parent.stat().st_mtime_ns
    if time.time_ns() - changed < _CLOCK_TICK:
        changed = time.monotonic_ns()  # what changes next may have the same time
    for name in _not_files(str(folder), changed):
        if name.lower().startswith((raster.stem.lower(), *_OF_FOLDERS)):
            is_file(folder / name)


@lru_cache(maxsize=64)
def _not_files(folder: str, _changed: int) -> list[str]:
    """Names of what is neither a file nor a folder, cached, as each raster of the folder asks for it."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not (entry.is_file() or entry.is_dir())]
    except PermissionError:  # it can be entered, not listed
        return []


def options_for(raster: Path) -> dict[str, str]:
    """GDAL's options to open a raster: no overviews where Erdas' `.aux` may hold some, of any pixels.

    Raises:
        UserError: GDAL would wait for a pipe, see `check_pipes`.
    """
    check_pipes(raster)
    names = (f"{start}{end}" for start in (raster.name, raster.stem) for end in (".aux", ".AUX"))
    for path in map(raster.with_name, names):
        if path.is_file() and is_of_erdas(path):
            return {"OVERVIEW_LEVEL": "NONE"}
    return {}


def is_of_erdas(aux: Path) -> bool:
    """Whether an `.aux` is of Erdas Imagine; TeX has such files, too."""
    with aux.open("rb") as file:
        return file.read(len(_ERDAS)) == _ERDAS


def world_transform(world: Path, content: bytes | None = None) -> Affine:
    """The georeference in a world file.

    Args:
        world: The file, or its name in an archive.
        content: Its bytes; None to read them.

    Raises:
        UserError: It does not hold six numbers.
    """
    text = (world.read_bytes() if content is None else content).decode("latin-1").replace(",", ".")
    try:
        a, d, b, e, c, f = (float(value) for value in text.split()[:6])
    except ValueError as error:
        raise UserError(f"{world} is not a world file: it must hold six numbers") from error
    # A world file contains the centre of the first pixel, a transform its corner.
    return Affine(a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)
