"""Picture layers of a tile or scene for the report, from the results of the finished stages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.data.cams import read_cams
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.geo.raster import open_class_map, read_png
from ome.pipeline.layout import (
    CAMS,
    PSEUDO_MASK,
    SEGMENTER_TITLES,
    cam_path,
    in_round,
    map_path,
    mask_path,
    read_pseudo_label,
    round_folders,
    round_number,
)
from ome.pipeline.stage import Work
from ome.plots.thumbnails import (
    Layer,
    class_picture,
    error_picture,
    heat_pictures,
    photo,
    thinned,
    weight_picture,
)

IMAGE, REFERENCE, ARGMAX, WEIGHT = "image", "reference", "CAM argmax", "weight"

HEAT: Final = {"cam": "", "affinity": " after the random walk"}
"""Suffix of the title of a CAM's picture, by the stage that writes the CAM."""


def heat_name(name: str, stage: str) -> str:
    """The title of the picture of a class's CAM."""
    return f"CAM of {name}{HEAT[stage]}"


@dataclass
class LayeredTile:
    """A tile or scene with its layers.

    Attributes:
        title: Name of the tile or scene.
        note: A line below the title.
        layers: The pictures, all of the same extent.
        left: Name of the layer that is initially shown left of the divider.
        right: Name of the layer that is initially shown right of the divider.
    """

    title: str
    note: str = ""
    layers: list[Layer] = field(default_factory=list)
    left: str = IMAGE
    right: str = IMAGE


class TileDrawer:
    """Draws layered tiles from the results of the finished stages of a run.

    Args:
        work: The work of stage report, whose inputs are the finished stages.
        reader: Reads images and reference masks.
        table: The tags of the training tiles.
    """

    def __init__(self, work: Work, reader: SceneReader, table: TagTable) -> None:
        self._inputs = work.inputs
        self._reader = reader
        self._table = table
        self._colours = list(reader.index.palette.classes.values())

    def segmenters(self) -> dict[str, Path]:
        """Folders of the trained segmenters by title: those of weak supervision, then the upper bound."""
        if "seg" not in self._inputs:
            return {}
        weak = {SEGMENTER_TITLES["weak"]: self._inputs["seg"] / "weak"}
        weak |= {
            in_round(SEGMENTER_TITLES["weak"], round_number(folder)): folder for folder in self._rounds()
        }
        return weak | {SEGMENTER_TITLES["full"]: self._inputs["seg"] / "full"}

    def training_tile(self, tile: Tile, note: str = "") -> LayeredTile:
        """A training tile: image, CAM of each tag, argmax, pseudo masks and weights of all rounds."""
        image = self._reader.display(tile)
        result = LayeredTile(tile.name, note or self._tags_of(tile), [photo(IMAGE, image)])
        for stage in HEAT:
            result.layers += self._heat(stage, tile, image)
        masks: dict[str, NDArray[np.uint8]] = {}
        if "pseudo" in self._inputs:
            pseudo = self._inputs["pseudo"]
            argmax = read_png(mask_path(pseudo, "cam_argmax", tile))
            result.layers.append(class_picture(ARGMAX, argmax, self._colours))
            sources = {"": pseudo} | {in_round("", round_number(folder)): folder for folder in self._rounds()}
            for after, folder in sources.items():
                mask, weight = read_pseudo_label(folder, tile)
                masks[PSEUDO_MASK + after] = mask
                result.layers.append(class_picture(PSEUDO_MASK + after, mask, self._colours))
                result.layers.append(weight_picture(WEIGHT + after, weight))
        reference = self._reader.mask(tile) if self._reader.has_mask(tile.scene) else None
        return self._compared(result, masks, reference)

    def mapped_tile(self, tile: Tile, note: str = "") -> LayeredTile:
        """A window of a mapped scene, or the whole scene: image, and the map of each segmenter."""
        scene = self._reader.index.scene(tile.scene)
        title = scene.name if tile == scene.whole else tile.name
        image = thinned(map(self._reader.display, tile.strips()), tile.height)
        result = LayeredTile(title, note, [photo(IMAGE, image)])
        maps: dict[str, NDArray[np.uint8]] = {}
        for title, folder in self.segmenters().items():
            if map_path(folder, scene).exists():
                with open_class_map(map_path(folder, scene)) as opened:
                    strips = (opened.values(*strip.window) for strip in tile.strips())
                    maps[title] = thinned(strips, tile.height)
                result.layers.append(class_picture(title, maps[title], self._colours))
        reference = None
        if self._reader.has_mask(tile.scene):
            reference = thinned(map(self._reader.mask, tile.strips()), tile.height)
        weak = {title: map_ for title, map_ in maps.items() if title != SEGMENTER_TITLES["full"]}
        return self._compared(result, weak or maps, reference)

    def _heat(self, stage: str, tile: Tile, image: NDArray[np.uint8]) -> list[Layer]:
        names = self._table.names
        if stage not in self._inputs or not (self._inputs[stage] / CAMS).is_dir():
            return []
        cams = read_cams(cam_path(self._inputs[stage], tile), len(names))
        titles = [heat_name(name, stage) for name in names]
        return heat_pictures(image, cams, self._table.by_name[tile.name], titles)

    def _compared(
        self, result: LayeredTile, masks: dict[str, NDArray[np.uint8]], reference: NDArray[np.uint8] | None
    ) -> LayeredTile:
        """Adds the reference and the errors of the last mask, and chooses the layers that are shown first."""
        last = next(reversed(masks), IMAGE)
        result.left, result.right = (IMAGE, last) if reference is None else (last, REFERENCE)
        if reference is not None:
            result.layers.append(class_picture(REFERENCE, reference, self._colours))
            if last in masks:
                result.layers.append(error_picture(f"errors of the {last}", masks[last], reference))
        return result

    def _tags_of(self, tile: Tile) -> str:
        present = np.flatnonzero(self._table.by_name[tile.name]).tolist()
        return f"tags: {', '.join(self._table.names[index] for index in present)}"

    def _rounds(self) -> list[Path]:
        folder = self._inputs.get("refine")
        return round_folders(folder) if folder else []


def mixed_tiles(table: TagTable) -> Sequence[Tile]:
    """The tiles with more than one tag, where classes must be distinguished; all tiles if there are none."""
    return [tile for tile in table.tiles if table.by_name[tile.name].sum() > 1] or table.tiles
