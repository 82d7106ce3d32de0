"""Every file that the map of a scene is made from."""

from functools import cache
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from ome.errors import UserError
from ome.geo.gdal import IMAGE_DRIVERS, plain_pixels
from ome.geo.mosaic import rasters_in
from ome.geo.sidecars import sidecars_of
from ome.geo.virtual import sources_of
from ome.geo.vsi import SceneAddress, VsiPath, full_address, reach, reading_options


def scene_files(path: SceneAddress) -> list[Path]:
    """The rasters of a scene, what a virtual raster reads, and the sidecars of each; all on this disk.

    Args:
        path: A raster, a VRT, or a folder of rasters; of a scene in an archive, the archive.

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
    """What changes when a scene that the network is asked for is replaced; empty for what lies on this disk.

    That is its address with ETag, date and size of a URL. A bucket tells GDAL none of these, so it is the
    shape, and where the last block begins and how long it is, which a change of any block before it moves
    where blocks are compressed.

    Raises:
        UserError: It cannot be reached or opened.
    """
    if not isinstance(scene, VsiPath) or not scene.is_remote:
        return []
    return [full_address(scene), *(reach(scene).state or _layout(scene))]


def _layout(scene: VsiPath) -> list[Any]:
    """Shape and kinds of a raster, and where its last block lies."""
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
        raise UserError(f"{scene} cannot be opened ({error}): check the address, or download it") from error
