"""QGIS styles, which QGIS looks for beside a raster and inside a GeoPackage."""

from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree as ET

from ome.geo.grid import RGB

VERSION: Final = "3.22"
"""QGIS version of the styles' format; later versions read it as well."""


def raster_style(names: Sequence[str], colours: Sequence[RGB]) -> str:
    """The style of a class map, whose legend lists the classes only.

    Without it QGIS lists all 256 colours that the colour table of a GeoTIFF always has.

    Args:
        names: Class names in order of index.
        colours: RGB of each class, 0..255.

    Returns:
        The text of a `.qml` file. QGIS loads it with a raster of the same name in the same folder.
    """
    root = ET.Element("qgis", version=VERSION)
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"),
        "rasterrenderer",
        {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""},
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for index, (name, (r, g, b)) in enumerate(zip(names, colours, strict=True)):
        entry = {"value": str(index), "label": name, "color": f"#{r:02x}{g:02x}{b:02x}", "alpha": "255"}
        ET.SubElement(palette, "paletteEntry", entry)
    return _text(root)


def region_style(names: Sequence[str], colours: Sequence[RGB], column: str) -> str:
    """The style of a layer of polygons: filled by class, with thin outlines.

    Args:
        names: Class names, as in the column.
        colours: RGB of each class, 0..255.
        column: Column with the class names.

    Returns:
        The text of a style. QGIS takes it from the table `layer_styles` of a GeoPackage.
    """
    root = ET.Element("qgis", version=VERSION)
    renderer = ET.SubElement(root, "renderer-v2", {"type": "categorizedSymbol", "attr": column})
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
        entry = {"value": name, "label": name, "symbol": str(index), "render": "true"}
        ET.SubElement(categories, "category", entry)
        symbol = ET.SubElement(symbols, "symbol", {"type": "fill", "name": str(index), "alpha": "1"})
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0"})
        values = {
            "color": ",".join(map(str, (*colour, 255))),
            "style": "solid",
            "outline_color": "60,60,60,255",
            "outline_style": "solid",
            "outline_width": "0.1",
            "outline_width_unit": "MM",
        }
        for key, value in values.items():
            # QGIS 3.22 reads `prop`; versions from 3.26 on write `Option`, but still read `prop`.
            ET.SubElement(layer, "prop", {"k": key, "v": value})
    return _text(root)


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(
        root, encoding="unicode"
    )
