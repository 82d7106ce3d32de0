"""The page's pictures side by side in image files, for papers and for Weights & Biases."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ome.geo.grid import RGB
from ome.pipeline.layout import PSEUDO_MASK
from ome.plots.panels import class_legend, heat_legend, save_panel
from ome.plots.thumbnails import Layer
from ome.report.gallery import Gallery
from ome.report.layered_tiles import ARGMAX, HEAT, IMAGE, REFERENCE, WEIGHT, LayeredTile, heat_name


def draw_panels(folder: Path, shown: Gallery, classes: Mapping[str, RGB]) -> None:
    """Writes a panel of each tile's CAMs, one of the pseudo masks, and one of each segmenter's maps.

    Args:
        folder: Folder of the image files.
        shown: The layered tiles of the page.
        classes: Colour of each class by name.
    """
    tiles, maps, legend = shown.layered_tiles["tiles"], shown.layered_tiles["maps"], class_legend(classes)
    for stage in HEAT:
        for title, layers in _rows(tiles, [heat_name(name, stage) for name in classes]):
            save_panel(folder / stage / f"{title}.png", [(title, layers)], heat_legend())
    if rows := _rows(tiles, (ARGMAX, PSEUDO_MASK, WEIGHT), (IMAGE, REFERENCE)):
        save_panel(folder / "pseudo_masks.png", rows, legend)
    for title, prediction in shown.segmenters.items():
        if rows := _rows(maps, (title,), (IMAGE, REFERENCE)):
            save_panel(folder / f"{prediction.name}.png", rows, legend)


def _rows(
    tiles: Sequence[LayeredTile], names: Collection[str], beside: Collection[str] = (IMAGE,)
) -> list[tuple[str, list[Layer]]]:
    """Title and layers of the tiles that have any layer in `names`: these layers and those in `beside`."""
    return [
        (tile.title, [layer for layer in tile.layers if layer.name in {*names, *beside}])
        for tile in tiles
        if any(layer.name in names for layer in tile.layers)
    ]
