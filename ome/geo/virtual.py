"""Checks GDAL's virtual rasters (VRT): they may only refer to files in their own folder."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from ome.errors import UserError
from ome.geo.gdal import SCENE_DRIVERS, XML_FAULTS, check_readable
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
"""Allowed tags and attributes, in lower case; none of them names a file but `sourcefilename`.

GDAL ignores case, and accepts an attribute in place of a tag.
"""


def check_virtual(path: Path, *, allow_external: bool = False) -> None:
    """Refuses a virtual raster that reads files outside its folder, or anything but local rasters.

    Args:
        path: The VRT.
        allow_external: Allow local files outside its folder.

    Raises:
        UserError: It is not XML, holds code, or names a file outside its folder, a network source, or a file
            of an unsupported format.
    """
    root = path.resolve().parent
    try:
        tree = tree_of(path)
    except XML_FAULTS as error:
        raise UserError(f"{path} is not a virtual raster ({error}): check the path") from error
    if unknown := next(_unknown(tree), None):
        raise UserError(
            f"{path} holds more than references to files ({unknown}): write it to a GeoTIFF first, "
            "gdal_translate IN OUT"
        )
    for filename, source in _sources(path, tree):
        if not source.is_file() or re.match(r"[A-Za-z]\w+:", filename):  # as in NETCDF:FILE:NAME
            raise UserError(f"{path} reads {filename!r}, which is not a file: give a VRT of local files")
        if not allow_external and root not in source.resolve().parents:
            raise UserError(
                f"{path} reads {filename}, outside its folder: type stage.predict.allow_external=true if "
                "that is meant"
            )
        if source.suffix.lower() == ".vrt":
            raise UserError(f"{path} reads another virtual raster, {filename}: name the rasters themselves")
        Raster(source, drivers=SCENE_DRIVERS).close()


def sources_of(path: Path) -> list[Path]:
    """The local files that a virtual raster reads, without duplicates; empty where it is not XML."""
    try:
        sources = _sources(path, tree_of(path))
        return list(dict.fromkeys(source for _, source in sources if source.is_file()))
    except XML_FAULTS:
        return []


def tree_of(path: Path) -> ET.Element:
    """Parses a VRT; raises one of `XML_FAULTS` where it is not XML, a `UserError` where it is no file."""
    check_readable(path, str(path), "check the path")
    content = path.read_bytes()
    if re.search(rb"<!(doctype|entity)", content, re.IGNORECASE):
        raise ET.ParseError("it declares entities")
    return ET.fromstring(content)  # noqa: S314 - without entities


def _unknown(tree: ET.Element) -> Iterator[str]:
    """Tags, attributes and values that are not allowed, since they might name a file."""
    tags, attributes = _TAGS.split(), _ATTRIBUTES.split()
    for node in tree.iter():
        if node.tag.lower() not in tags:
            yield node.tag
        for key, value in node.items():
            allowed = _VALUES.get(key.lower())
            if key.lower() not in attributes or (allowed is not None and value.lower() not in allowed):
                yield f'{node.tag} {key}="{value}"'


def _sources(path: Path, tree: ET.Element) -> Iterator[tuple[str, Path]]:
    """The sources as they are written, and their paths."""
    return (file_of(path, node) for node in tree.iter() if node.tag.lower() == _SOURCE)


def file_of(path: Path, node: ET.Element) -> tuple[str, Path]:
    """The file that an element of a VRT names, as it is written, and its path."""
    filename = node.text or ""
    relative = any(key.lower() == "relativetovrt" and value == "1" for key, value in node.items())
    return filename, path.resolve().parent / filename if relative else Path(filename)
