"""Selects the tiles and scenes that the report shows: some of all, and the worst."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.data.scenes import SceneReader
from ome.data.splits import mapped_scenes
from ome.data.tags import TagTable
from ome.data.tiles import Tile, evenly_spaced
from ome.pipeline.layout import SEGMENTER_TITLES, read_tag_table
from ome.pipeline.stage import Work
from ome.report.contents import worst_table
from ome.report.covered import mapped_areas, predicted_areas
from ome.report.exhibits import Exhibit, Exhibitor, mixed_tiles
from ome.report.judging import Judged, judge_maps, judge_pseudo_masks, weight_errors, worst
from ome.scoring.tables import percent

WORST = 3
"""Tiles shown of the worst."""


@dataclass
class Gallery:
    """What `collect` found.

    Attributes:
        exhibits: `tiles` and `maps`, and the worst of both as `worst_tiles` and `worst_maps`.
        worst: For each of the two, its title, a note, a table of scores, and the name of its exhibits.
        errors: Sums of `error_counts` by criterion, the weight first; empty where nothing is known.
        judged_on: Which tiles those are of.
        areas: What the classes cover in maps: titles, notes and tables.
        segmenters: Folders of the trained segmenters by title.
    """

    exhibits: dict[str, list[Exhibit]] = field(default_factory=dict)
    worst: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    judged_on: str = ""
    areas: list[dict[str, Any]] = field(default_factory=list)
    segmenters: dict[str, Path] = field(default_factory=dict)


def collect(work: Work, reader: SceneReader) -> Gallery:
    """Chooses tiles and scenes, evenly spaced and the worst, and reads their layers."""
    table = read_tag_table(work.inputs["labels"], reader.index).select("train", tagged=True)
    exhibitor = Exhibitor(work, reader, table)
    tiles = evenly_spaced(mixed_tiles(table), work.settings.tiles)
    scenes = evenly_spaced(mapped_scenes(reader.index), work.settings.tiles) if "seg" in work.inputs else []
    gallery = Gallery()
    gallery.exhibits["tiles"] = [exhibitor.training_tile(tile) for tile in tiles]
    gallery.exhibits["maps"] = [
        exhibitor.mapped(Tile(scene.name, 0, 0, scene.height, scene.width)) for scene in scenes
    ]
    if "pseudo" in work.inputs:
        _judge_pseudo_masks(gallery, work, reader, table, exhibitor)
    if "ablation" in work.inputs:
        gallery.errors = weight_errors(work.inputs["ablation"], "cam")
        gallery.judged_on = "the tiles of stage=ablation"
    segmenters = gallery.segmenters = exhibitor.segmenters()
    weak = [title for title in segmenters if title != SEGMENTER_TITLES["full"]]
    compared = {
        title: folder
        for title, folder in segmenters.items()
        if title in {*weak[-1:], SEGMENTER_TITLES["full"]}
    }
    gallery.areas = [areas for areas in (mapped_areas(compared, reader),) if areas]
    gallery.areas += predicted_areas(Path(work.config.run_dir))
    if weak:
        _judge_maps(gallery, work, reader, weak[-1], exhibitor)
    return gallery


def _judge_pseudo_masks(
    gallery: Gallery, work: Work, reader: SceneReader, table: TagTable, exhibitor: Exhibitor
) -> None:
    judged = judge_pseudo_masks(work.inputs["pseudo"], reader, table.tiles)
    gallery.errors, gallery.judged_on = {"weight": judged.errors}, f"{len(judged.tiles)} training tiles"
    lowest = worst(judged.tiles, WORST)
    gallery.exhibits["worst_tiles"] = [exhibitor.training_tile(one.tile, _scores(one)) for one in lowest]
    _add_worst(gallery, "worst_tiles", "Pseudo masks", gallery.judged_on, lowest)


def _judge_maps(gallery: Gallery, work: Work, reader: SceneReader, title: str, exhibitor: Exhibitor) -> None:
    folder: Path = exhibitor.segmenters()[title]
    judged = judge_maps(folder, reader, work.config.dataset.tile.size)
    lowest = worst(judged, WORST)
    gallery.exhibits["worst_maps"] = [exhibitor.mapped(one.tile, _scores(one)) for one in lowest]
    _add_worst(
        gallery, "worst_maps", title.capitalize(), f"{len(judged)} windows of the mapped scenes", lowest
    )


def _add_worst(gallery: Gallery, name: str, title: str, judged_on: str, lowest: Sequence[Judged]) -> None:
    if lowest:
        note = f"The lowest mIoU among {judged_on}."
        gallery.worst.append({"title": title, "note": note, "table": worst_table(lowest), "exhibits": name})


def _scores(one: Judged) -> str:
    return f"mIoU {percent(one.scores.miou)} %, OA {percent(one.scores.oa)} %"
