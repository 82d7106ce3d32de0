"""Folders of rasters: which files in them are read."""

from collections.abc import Container
from pathlib import Path
from typing import Final

from ome.errors import UserError
from ome.files import is_file
from ome.geo.gdal import IMAGE_DRIVERS
from ome.geo.reader import Raster
from ome.geo.vsi import SceneAddress, VsiPath

SUFFIXES: Final = (".tif", ".tiff", ".png", ".jpg", ".jpeg")

OTHER_SUFFIXES: Final = (".jp2", ".j2k", ".img", ".ecw", ".sid", ".webp", ".bmp", ".bil", ".nc", ".hdf")
"""Suffixes of rasters that are not read from a folder."""


def rasters_in(folder: Path) -> list[Path]:
    """The GeoTIFFs, PNGs and JPEGs in a folder, sorted; without hidden files and subfolders.

    Raises:
        UserError: The folder holds none, or a link to one that does not exist.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and is_file(path))
    if paths := [path for path in paths if not path.name.startswith(".")]:
        return paths
    raise UserError(
        f"{folder} holds no GeoTIFF, PNG or JPEG{subfolder_hint(folder)}{format_hint(folder)}: give a "
        "raster, or the folder that holds them"
    )


def subfolder_hint(folder: Path, stems: Container[str] | None = None) -> str:
    """Names a raster in a subfolder, as rasters there are not read; empty if there is none.

    Args:
        folder: The folder.
        stems: The raster has one of these names without a suffix; None for any.
    """
    for path in sorted(folder.glob("[!.]*/[!.]*")):
        if path.suffix.lower() in SUFFIXES and (stems is None or path.stem in stems):
            return f"; {path.relative_to(folder)} is in a subfolder, which is not read"
    return ""


def format_hint(folder: Path, names: Container[str] | None = None) -> str:
    """Names a raster in a folder whose format is not read there; empty if there is none.

    Args:
        folder: The folder.
        names: The raster has one of these names, with a suffix or without; None for any.
    """
    for name in other_rasters_in(folder):
        if names is None or name in names or Path(name).stem in names:
            return f"; {name} is there, but only GeoTIFF, PNG and JPEG are read: gdal_translate IN OUT.tif"
    return ""


def other_rasters_in(folder: Path) -> list[str]:
    """Names of the rasters in a folder whose formats are not read from a folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in OTHER_SUFFIXES)


def scenes_in(path: SceneAddress) -> list[SceneAddress]:
    """The scenes at a path: a raster or folder is one scene, except a folder of images without georeference.

    Such images cannot be placed next to one another, so each is a scene.

    Raises:
        UserError: A raster cannot be opened.
    """
    if isinstance(path, VsiPath) or not path.is_dir():
        return [path]
    rasters = rasters_in(path)
    for raster in rasters:
        with Raster(raster, drivers=IMAGE_DRIVERS) as opened:
            if not opened.grid.transform.is_identity:
                return [path]
    return [*rasters]
