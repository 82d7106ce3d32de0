"""Cloud-Optimized GeoTIFFs: tiled, with overviews, in the order in which viewers read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal
from xml.etree import ElementTree as ET

import rasterio
import rasterio.shutil

from ome.files import write_text
from ome.geo.grid import RGB, Grid
from ome.geo.raster import atomic_raster
from ome.geo.styles import raster_style
from ome.ignore import IGNORE

BLOCK: Final = 512
"""Side of a block in pixels; overviews are made until one fits into a block."""

THREADS = "ALL_CPUS"
"""GDAL's NUM_THREADS, for compression and overviews."""


def write_class_cog(path: Path, flat: Path, grid: Grid, names: Sequence[str], colours: Sequence[RGB]) -> None:
    """Writes a class map that a viewer shows in the classes' colours and with their names.

    Colours are in the band's colour table, 255 is nodata. Class names are written twice: into the file as the
    band's tags `CLASS_0`, `CLASS_1`, ..., and into `<path>.aux.xml` as GDAL's category names, which GeoTIFF
    cannot hold. QGIS takes its legend from a style file beside the raster, see `raster_style`.

    Args:
        path: The file to write.
        flat: (H, W) bytes, class indices or 255; see `FlatRasters`.
        grid: Size and georeference of the map.
        names: Class names in order of index.
        colours: RGB of each class, 0..255.
    """
    root = _dataset(grid)
    band = _band(root, 1, flat, grid, "class")
    metadata = ET.SubElement(band, "Metadata")
    for index, name in enumerate(names):
        ET.SubElement(metadata, "MDI", key=f"CLASS_{index}").text = name
    ET.SubElement(band, "ColorInterp").text = "Palette"
    table = ET.SubElement(band, "ColorTable")
    for red, green, blue in colours:
        ET.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")
    side = ET.Element("PAMDataset")
    categories = ET.SubElement(ET.SubElement(side, "PAMRasterBand", band="1"), "CategoryNames")
    for name in names:
        ET.SubElement(categories, "Category").text = name
    ET.indent(side)
    write_text(path.with_name(f"{path.name}.aux.xml"), ET.tostring(side, encoding="unicode") + "\n")
    write_text(path.with_suffix(".qml"), raster_style(names, colours) + "\n")
    _copy(path, flat, root, "MODE")


def write_probability_cog(path: Path, flat: Path, grid: Grid, descriptions: Sequence[str]) -> None:
    """Writes bands of probabilities: 0..254 for 0 to 1 (stored as the bands' scale), 255 for nodata.

    `flat` has bands of (H, W) bytes, one after the other, each with a description.
    """
    root = _dataset(grid)
    for number, description in enumerate(descriptions, start=1):
        band = _band(root, number, flat, grid, description)
        ET.SubElement(band, "Scale").text = repr(1 / 254)
    _copy(path, flat, root, "AVERAGE")


def _dataset(grid: Grid) -> ET.Element:
    root = ET.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs is not None:
        ET.SubElement(root, "SRS").text = grid.crs.to_wkt()
    if not grid.transform.is_identity:
        ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, grid.transform.to_gdal()))
    return root


def _band(root: ET.Element, number: int, flat: Path, grid: Grid, description: str) -> ET.Element:
    band = ET.SubElement(
        root, "VRTRasterBand", dataType="Byte", band=str(number), subClass="VRTRawRasterBand"
    )
    ET.SubElement(band, "Description").text = description
    ET.SubElement(band, "NoDataValue").text = str(IGNORE)
    ET.SubElement(band, "SourceFilename", relativeToVRT="1").text = flat.name
    ET.SubElement(band, "ImageOffset").text = str((number - 1) * grid.height * grid.width)
    ET.SubElement(band, "PixelOffset").text = "1"
    ET.SubElement(band, "LineOffset").text = str(grid.width)
    return band


def _copy(path: Path, flat: Path, root: ET.Element, overviews: Literal["MODE", "AVERAGE"]) -> None:
    """Converts plain bytes, described by a VRT, to a COG."""
    vrt = flat.with_suffix(".vrt")
    vrt.write_bytes(ET.tostring(root))
    options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": BLOCK, "OVERVIEW_RESAMPLING": overviews}
    options |= {"BIGTIFF": "IF_SAFER", "NUM_THREADS": THREADS}
    # GDAL would name an .aux.xml after the temporary file.
    size = 2 * flat.stat().st_size  # with overviews, which GDAL first writes to a file of their own
    with atomic_raster(path, size) as temporary, rasterio.Env(GDAL_PAM_ENABLED=False):
        rasterio.shutil.copy(vrt, temporary, driver="COG", **options)
