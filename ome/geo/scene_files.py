"""Every file that the map of a scene is made from."""

from functools import cache
from pathlib import Path

from ome.errors import UserError
from ome.geo.mosaic import rasters_in
from ome.geo.sidecars import sidecars_of
from ome.geo.virtual import sources_of


def scene_files(path: Path) -> list[Path]:
    """The rasters of a scene, what a virtual raster reads, and the sidecars of each.

    Args:
        path: A raster, a VRT, or a folder of rasters.

    Raises:
        UserError: The path does not exist, or the folder holds no raster.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: check the path")

    @cache
    def siblings(folder: Path) -> dict[str, Path]:
        return {file.name.lower(): file for file in sorted(folder.iterdir())}

    if path.is_dir():
        rasters = rasters_in(path)
    else:
        rasters = [path, *(sources_of(path) if path.suffix.lower() == ".vrt" else [])]
    return [file for raster in rasters for file in (raster, *sidecars_of(raster, siblings(raster.parent)))]
