"""GDAL's virtual rasters (VRT), which name other files: only ones that stay where the raster lies."""

from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from ome.errors import UserError
from ome.geo.gdal import SCENE_DRIVERS
from ome.geo.reader import Raster

DRIVER: Final = "VRT"

_PLAIN: Final = {"SourceFilename"}
_ACTIVE: Final = {"SourceDataset", "PixelFunctionCode", "WarpedVRT", "GDALWarpOptions", "SourceFileName"}


def check_virtual(path: Path, *, allow_external: bool = False) -> None:
    """Refuses a virtual raster that reads what does not belong to it.

    Args:
        path: The VRT.
        allow_external: Let it read local files outside its folder.

    Raises:
        UserError: It is not XML, holds code, or names a file outside its folder, a network source, or a file
            of a format that is not read.
    """
    root = path.resolve().parent
    try:
        tree = ET.fromstring(path.read_bytes())  # noqa: S314 - entities are refused below
    except ET.ParseError as error:
        raise UserError(f"{path} is not a virtual raster ({error}): check the path") from error
    for node in tree.iter():
        if node.tag in _ACTIVE or node.get("subClass") not in {None, "VRTSourcedRasterBand"}:
            raise UserError(
                f"{path} holds more than references to files ({node.tag}): write it to a GeoTIFF first, "
                "gdal_translate IN OUT"
            )
        if node.tag not in _PLAIN:
            continue
        named = (node.text or "").strip()
        source = Path(named) if node.get("relativeToVRT") != "1" else root / named
        if not source.is_file():
            raise UserError(f"{path} reads {named!r}, which is not a file: give a VRT of local files")
        if not allow_external and root not in source.resolve().parents:
            raise UserError(
                f"{path} reads {named}, outside its folder: type stage.predict.allow_external=true if that "
                "is meant"
            )
        if source.suffix.lower() == ".vrt":
            raise UserError(f"{path} reads another virtual raster, {named}: name the rasters themselves")
        Raster(source, drivers=SCENE_DRIVERS).close()
