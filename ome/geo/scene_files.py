"""All files that a scene's map depends on."""

from functools import cache
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from ome.errors import UserError
from ome.geo.gdal import IMAGE_DRIVERS, plain_pixels
from ome.geo.raster_folder import rasters_in
from ome.geo.remote import probe, reading_options
from ome.geo.sidecars import sidecars_of
from ome.geo.virtual import sources_of
from ome.geo.vsi import SceneAddress, VsiPath, full_address


def scene_files(path: SceneAddress) -> list[Path]:
    """The local files of a scene: its rasters, the sources of a VRT, and the sidecars of each.

    Args:
        path: A raster, a VRT, or a folder of rasters; for a scene in an archive, the archive is returned.

    Raises:
        UserError: The path does not exist, or the folder holds no raster.
    """
    if isinstance(path, VsiPath):
        return [path.member[0]] if path.member else []
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


def remote_state(scene: SceneAddress) -> list[Any]:
    """Values that change when a remote scene is replaced; empty for a local one.

    For a URL these are the address, ETag, date and size. A bucket does not tell GDAL the last three; instead
    the shape and the offset and size of the last block are used: in a compressed file a change of an earlier
    block moves the last one.

    Raises:
        UserError: The scene cannot be reached or opened.
    """
    if not isinstance(scene, VsiPath) or not scene.is_remote:
        return []
    probed = probe(scene)
    return [full_address(scene), *(probed.state or _layout(scene, probed.refusal))]


def _layout(scene: VsiPath, refusal: str) -> list[Any]:
    """Shape and data types of a raster, and the offset and size of its last block."""
    try:
        with (
            plain_pixels(),
            rasterio.Env(**reading_options()),
            DatasetReader(scene.path, driver=[*IMAGE_DRIVERS]) as opened,
        ):
            down, across = opened.block_shapes[-1]
            last = f"{(opened.width - 1) // across}_{(opened.height - 1) // down}"
            keys = (f"BLOCK_{what}_{last}" for what in ("OFFSET", "SIZE"))
            where = [opened.get_tag_item(key, "TIFF", bidx=opened.count) for key in keys]
            return [opened.height, opened.width, *opened.dtypes, *where]
    except (RasterioError, OSError, ValueError) as error:
        if refusal:
            raise UserError(refusal) from error
        raise UserError(f"{scene} cannot be opened ({error}): {scene.remedy}") from error
