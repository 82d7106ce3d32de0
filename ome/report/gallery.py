"""Selects the tiles and scenes that the report shows: evenly spaced ones, and the worst."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.data.scene_index import mapped_scenes
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, evenly_spaced
from ome.pipeline.layout import SEGMENTER_TITLES, read_tag_table
from ome.pipeline.stage import Work
from ome.report.contents import worst_table
from ome.report.layered_tiles import LayeredTile, TileDrawer, mixed_tiles
from ome.report.map_areas import mapped_areas, predicted_areas
from ome.report.tile_quality import TileQuality, map_quality, pseudo_mask_quality, weight_errors, worst
from ome.scoring.tables import percent

WORST = 3
"""Number of worst tiles that are shown."""


@dataclass
class Gallery:
    """Pictures and tables of tiles and scenes.

    Attributes:
        layered_tiles: `tiles` and `maps`, and the worst of both as `worst_tiles` and `worst_maps`.
        worst: Title, note, table of scores and name of the layered tiles of `worst_tiles` and `worst_maps`.
        errors: Sums of `error_counts` by criterion, the weight first; empty without pseudo masks
            or references.
        scored_on: Description of the tiles that `errors` counts.
        areas: Titles, notes and tables of the areas of classes in maps.
        segmenters: Folders of the trained segmenters by title.
    """

    layered_tiles: dict[str, list[LayeredTile]] = field(default_factory=dict)
    worst: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    scored_on: str = ""
    areas: list[dict[str, Any]] = field(default_factory=list)
    segmenters: dict[str, Path] = field(default_factory=dict)

    def add_worst(
        self,
        name: str,
        title: str,
        scored_on: str,
        scored: Sequence[TileQuality],
        draw: Callable[[Tile, str], LayeredTile],
    ) -> None:
        """Adds pictures and table of the worst of some tiles, `draw` being called with tile and note."""
        lowest = worst(scored, WORST)
        self.layered_tiles[name] = [
            draw(one.tile, f"mIoU {percent(one.scores.miou)} %, OA {percent(one.scores.oa)} %")
            for one in lowest
        ]
        if lowest:
            note = f"The lowest mIoU among {scored_on}."
            self.worst.append(
                {"title": title, "note": note, "table": worst_table(lowest), "layered_tiles": name}
            )


def collect(work: Work, reader: SceneReader) -> Gallery:
    """Chooses tiles and scenes, evenly spaced and the worst, and reads their layers."""
    table = read_tag_table(work.inputs["labels"], reader.index).select("train", tagged=True)
    drawer = TileDrawer(work, reader, table)
    tiles = evenly_spaced(mixed_tiles(table), work.settings.tiles)
    scenes = evenly_spaced(mapped_scenes(reader.index), work.settings.tiles) if "seg" in work.inputs else []
    gallery = Gallery()
    gallery.layered_tiles["tiles"] = [drawer.training_tile(tile) for tile in tiles]
    gallery.layered_tiles["maps"] = [drawer.mapped_tile(scene.whole) for scene in scenes]
    if "pseudo" in work.inputs:
        scored = pseudo_mask_quality(work.inputs["pseudo"], reader, table.tiles)
        gallery.errors, gallery.scored_on = {"weight": scored.errors}, f"{len(scored.tiles)} training tiles"
        gallery.add_worst(
            "worst_tiles", "Pseudo masks", gallery.scored_on, scored.tiles, drawer.training_tile
        )
    if "ablation" in work.inputs:
        gallery.errors = weight_errors(work.inputs["ablation"], "cam")
        gallery.scored_on = "the tiles of stage=ablation"
    gallery.errors = {name: counts for name, counts in gallery.errors.items() if counts.any()}
    segmenters = gallery.segmenters = drawer.segmenters()
    weak = [title for title in segmenters if title != SEGMENTER_TITLES["full"]]
    compared = {
        title: folder
        for title, folder in segmenters.items()
        if title in {*weak[-1:], SEGMENTER_TITLES["full"]}
    }
    gallery.areas = [areas for areas in (mapped_areas(compared, reader),) if areas]
    gallery.areas += predicted_areas(Path(work.config.run_dir))
    if weak:
        windows = map_quality(segmenters[weak[-1]], reader, work.config.dataset.tile.size)
        scored_on = f"{len(windows)} windows of the mapped scenes"
        gallery.add_worst("worst_maps", weak[-1].capitalize(), scored_on, windows, drawer.mapped_tile)
    return gallery
