"""GDAL's virtual rasters (VRT), which name other files: only ones that stay where the raster lies."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from ome.errors import UserError
from ome.geo.gdal import SCENE_DRIVERS, XML_FAULTS
from ome.geo.reader import Raster

DRIVER: Final = "VRT"

_SOURCE: Final = "sourcefilename"
_TAGS: Final = f"""
vrtdataset vrtrasterband maskband overviewlist overview srs geotransform gcplist gcp blockxsize blockysize
metadata mdi description unittype offset scale categorynames category colorinterp colortable entry
nodatavalue hidenodatavalue histograms histitem histmin histmax bucketcount includeoutofrange approximate
histcounts simplesource complexsource averagedsource {_SOURCE} sourceband sourceproperties srcrect dstrect
nodata usemaskband lut scaleoffset scaleratio exponent srcmin srcmax dstmin dstmax clamp colortablecomponent
"""
_ATTRIBUTES: Final = """
rasterxsize rasterysize datatype band subclass blockxsize blockysize relativetovrt shared resampling domain
key xoff yoff xsize ysize c1 c2 c3 c4 dataaxistosrsaxismapping coordinateepoch projection id info pixel line
x y z
"""
_VALUES: Final = {
    "subclass": {"vrtsourcedrasterband"},
    "relativetovrt": {"0", "1"},
    "domain": {"", "image_structure", "rpc", "color_profile", "exif", "imd"},
}
"""Tags and attributes that are known to name no file but for the source's, in lower case.

GDAL takes any case, and an attribute where it looks for a tag.
"""


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
        tree = _tree(path)
    except XML_FAULTS as error:
        raise UserError(f"{path} is not a virtual raster ({error}): check the path") from error
    if unknown := next(_unknown(tree), None):
        raise UserError(
            f"{path} holds more than references to files ({unknown}): write it to a GeoTIFF first, "
            "gdal_translate IN OUT"
        )
    for named, source in _named(path, tree):
        if not source.is_file() or re.match(r"[A-Za-z]\w+:", named):  # as in NETCDF:FILE:NAME
            raise UserError(f"{path} reads {named!r}, which is not a file: give a VRT of local files")
        if not allow_external and root not in source.resolve().parents:
            raise UserError(
                f"{path} reads {named}, outside its folder: type stage.predict.allow_external=true if that "
                "is meant"
            )
        if source.suffix.lower() == ".vrt":
            raise UserError(f"{path} reads another virtual raster, {named}: name the rasters themselves")
        Raster(source, drivers=SCENE_DRIVERS).close()


def sources_of(path: Path) -> list[Path]:
    """The local files that a virtual raster names, each once; none of a file that `check_virtual` refuses."""
    try:
        named = _named(path, _tree(path))
        return list(dict.fromkeys(source for _, source in named if source.is_file()))
    except XML_FAULTS:
        return []


def _tree(path: Path) -> ET.Element:
    content = path.read_bytes()
    if re.search(rb"<!(doctype|entity)", content, re.IGNORECASE):
        raise ET.ParseError("it declares entities")
    return ET.fromstring(content)  # noqa: S314 - without entities


def _unknown(tree: ET.Element) -> Iterator[str]:
    """What might name a file: tags, attributes and their values that are not known."""
    tags, attributes = _TAGS.split(), _ATTRIBUTES.split()
    for node in tree.iter():
        if node.tag.lower() not in tags:
            yield node.tag
        for key, value in node.items():
            allowed = _VALUES.get(key.lower())
            if key.lower() not in attributes or (allowed is not None and value.lower() not in allowed):
                yield f'{node.tag} {key}="{value}"'


def _named(path: Path, tree: ET.Element) -> Iterator[tuple[str, Path]]:
    """The sources as they are written, and where they lie."""
    for node in tree.iter():
        if node.tag.lower() == _SOURCE:
            named = node.text or ""
            relative = any(key.lower() == "relativetovrt" and value == "1" for key, value in node.items())
            yield named, path.resolve().parent / named if relative else Path(named)
