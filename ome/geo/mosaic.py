"""A folder of rasters seen as one: a VRT made of those that lie on one grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.transform import Affine

from ome.errors import UserError
from ome.files import atomic_path

SUFFIXES: Final = (".tif", ".tiff")

OFF_GRID: Final = 0.05
"""Part of a pixel by which a raster may lie beside the grid of the first, for rounded coordinates."""


def rasters_in(folder: Path) -> list[Path]:
    """The GeoTIFFs in a folder, sorted; folders in it are not searched.

    Raises:
        UserError: There is none.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{folder} holds no GeoTIFF (.tif): give a raster, or the folder that holds them")
    return found


def write_mosaic(path: Path, rasters: Sequence[Path], channels: Sequence[int] = ()) -> None:
    """Describes rasters as one, with an opacity band that tells where one of them has measured something.

    Where rasters overlap, the later one is seen.

    Args:
        path: The VRT to make.
        rasters: Files of one coordinate reference system, pixel size, depth and number of bands.
        channels: Bands that are looked at: one of them is no opacity, whatever its file says.

    Raises:
        UserError: A raster cannot be read, has no georeference, or does not fit the first one.
    """
    described = [_describe(raster, channels) for raster in rasters]
    first = described[0]
    for raster, other in zip(rasters, described, strict=True):
        if difference := _difference(first, other):
            raise UserError(
                f"{raster} and {rasters[0]} differ in {difference}: make them one grid, e.g. with gdalwarp"
            )
    offsets = [_offset(first["transform"], other["transform"]) for other in described]
    left, top = (round(min(offset[axis] for offset in offsets)) for axis in (0, 1))
    root = ET.Element("VRTDataset")
    ET.SubElement(root, "SRS").text = first["crs"].to_wkt()
    origin = first["transform"] * Affine.translation(left, top)
    ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, origin.to_gdal()))
    places = [(round(x) - left, round(y) - top) for x, y in offsets]
    width = max(x + other["width"] for (x, _), other in zip(places, described, strict=True))
    height = max(y + other["height"] for (_, y), other in zip(places, described, strict=True))
    root.attrib |= {"rasterXSize": str(width), "rasterYSize": str(height)}
    for number in range(1, first["count"] + 2):
        opacity = number > first["count"]
        kind = "Byte" if opacity else first["dtype"]
        band = ET.SubElement(root, "VRTRasterBand", dataType=kind, band=str(number))
        ET.SubElement(band, "ColorInterp").text = "Alpha" if opacity else "Undefined"
        for raster, other, place in zip(rasters, described, places, strict=True):
            _add_source(band, raster.resolve(), other, place, number)
    with atomic_path(path) as temporary:
        temporary.write_bytes(ET.tostring(root))


def _add_source(
    band: ET.Element, raster: Path, other: dict[str, Any], place: tuple[int, int], number: int
) -> None:
    opacity = number > other["count"]
    source = ET.SubElement(band, "ComplexSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = str(raster)
    own_mask = opacity and other["masked"]
    ET.SubElement(source, "SourceBand").text = "mask,1" if own_mask else str(min(number, other["count"]))
    for name, (x, y) in {"SrcRect": (0, 0), "DstRect": place}.items():
        size = {"xSize": str(other["width"]), "ySize": str(other["height"])}
        ET.SubElement(source, name, {"xOff": str(x), "yOff": str(y), **size})
    if own_mask:
        ET.SubElement(source, "NODATA").text = "0"  # what a raster has not measured hides no other
    elif opacity:
        # Whatever the band holds, opacity is full wherever the raster is.
        ET.SubElement(source, "ScaleOffset").text = "255"
        ET.SubElement(source, "ScaleRatio").text = "0"
    elif other["masked"]:
        ET.SubElement(source, "UseMaskBand").text = "true"


def _describe(path: Path, channels: Sequence[int]) -> dict[str, Any]:
    try:
        with rasterio.open(path) as dataset:
            if dataset.crs is None or dataset.transform.is_identity:
                raise UserError(
                    f"{path} has no georeference, so it has no place among others: predict it alone"
                )
            bands = enumerate(dataset.colorinterp, start=1)
            seen = any(kind == ColorInterp.alpha and band in channels for band, kind in bands)
            masked = any(flag.name != "all_valid" for flag in dataset.mask_flag_enums[0])
            return {
                "crs": dataset.crs,
                "transform": dataset.transform,
                "dtype": {"uint8": "Byte", "uint16": "UInt16"}.get(dataset.dtypes[0], dataset.dtypes[0]),
                "count": dataset.count,
                "width": dataset.width,
                "height": dataset.height,
                "masked": masked and not seen,
            }
    except RasterioError as error:
        raise UserError(f"{path} is no raster that GDAL can read: remove it, or copy it again") from error


def _difference(first: dict[str, Any], other: dict[str, Any]) -> str:
    """What keeps two rasters from being parts of one, in words; nothing where they fit."""
    words = {"crs": "coordinate reference system", "count": "number of bands", "dtype": "kind of values"}
    for key, word in words.items():
        if first[key] != other[key]:
            return word
    ours, theirs = first["transform"], other["transform"]
    sides = zip((ours.a, ours.b, ours.d, ours.e), (theirs.a, theirs.b, theirs.d, theirs.e), strict=True)
    size = max(abs(ours.a), abs(ours.b), abs(ours.d), abs(ours.e))
    if any(abs(one - two) > 1e-6 * size for one, two in sides):
        return "pixel size or direction"
    if any(abs(value - round(value)) > OFF_GRID for value in _offset(ours, theirs)):
        return "grid (they are shifted by a part of a pixel)"
    return ""


def _offset(first: Affine, other: Affine) -> tuple[float, float]:
    """Columns and rows from the upper left corner of the first raster to that of the other."""
    x, y = other.c - first.c, other.f - first.f
    inverse = ~Affine(first.a, first.b, 0, first.d, first.e, 0)
    return inverse.a * x + inverse.b * y, inverse.d * x + inverse.e * y
