"""Panels as files, for papers and for W&B: what the page shows to be moved and compared, side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ome.data.cams import cam_path, read_cams
from ome.data.scenes import Scene, SceneReader
from ome.data.splits import mapped_scenes
from ome.data.tiles import Tile, evenly_spaced
from ome.geo.raster import read_class_map, read_png
from ome.pipeline.layout import SEGMENTER_TITLES, map_path, mask_path, read_tag_table, round_folders
from ome.pipeline.stage import Work
from ome.plots.figures import save_figure
from ome.plots.panels import PanelRow, cam_panel_figure, panel_figure
from ome.report.exhibits import mixed_tiles

LARGEST_SCENE = 512
"""Pixels of a scene's longer side in a panel; larger scenes are thinned out."""


def draw_pictures(work: Work, reader: SceneReader) -> None:
    """Draws panels of some tiles and maps into `work.folder`, as far as stages have finished."""
    table = read_tag_table(work.inputs["labels"], reader.index).select("train", tagged=True)
    tiles = evenly_spaced(mixed_tiles(table), work.settings.tiles)
    if not tiles:
        return
    for stage in ("cam", "affinity"):
        if stage in work.inputs and (work.inputs[stage] / "cams").is_dir():
            for tile in tiles:
                cams = read_cams(cam_path(work.inputs[stage] / "cams", tile), len(table.names))
                figure = cam_panel_figure(reader.display(tile), cams, table.by_name[tile.name], table.names)
                save_figure(work.folder / stage / f"{tile.name}.png", figure)
    if "pseudo" in work.inputs:
        _draw(work, reader, "pseudo_masks", [_tile_row(work, reader, tile) for tile in tiles])
    if "seg" in work.inputs:
        _draw_maps(work, reader)


def _draw(work: Work, reader: SceneReader, name: str, rows: Sequence[PanelRow]) -> None:
    palette = reader.index.palette
    save_figure(
        work.folder / f"{name}.png", panel_figure(rows, palette.names, list(palette.classes.values()))
    )


def _tile_row(work: Work, reader: SceneReader, tile: Tile) -> PanelRow:
    folder = work.inputs["pseudo"]
    return PanelRow(
        title=tile.name,
        image=reader.display(tile),
        cam_argmax=read_png(mask_path(folder, "cam_argmax", tile)),
        pseudo_mask=read_png(mask_path(folder, "masks", tile)),
        weight=read_png(mask_path(folder, "weights", tile)),
        reference=_reference(reader, tile),
    )


def _draw_maps(work: Work, reader: SceneReader) -> None:
    """One panel for each segmenter: the weakly supervised ones of all rounds, and the upper bound."""
    folders = [work.inputs["seg"] / target for target in SEGMENTER_TITLES]
    if "refine" in work.inputs:
        folders += round_folders(work.inputs["refine"])
    scenes = evenly_spaced(mapped_scenes(reader.index), work.settings.tiles)
    for folder in folders:
        rows = [
            _scene_row(reader, scene, map_path(folder, scene))
            for scene in scenes
            if map_path(folder, scene).exists()
        ]
        if rows:
            _draw(work, reader, folder.name, rows)


def _scene_row(reader: SceneReader, scene: Scene, prediction: Path) -> PanelRow:
    tile = Tile(scene.name, 0, 0, scene.height, scene.width)
    step = max(1, -(-max(scene.height, scene.width) // LARGEST_SCENE))
    reference = _reference(reader, tile)
    return PanelRow(
        title=scene.name,
        image=reader.display(tile)[::step, ::step],
        prediction=read_class_map(prediction)[::step, ::step],
        reference=reference if reference is None else reference[::step, ::step],
    )


def _reference(reader: SceneReader, tile: Tile) -> NDArray[np.uint8] | None:
    return reader.mask(tile) if reader.has_mask(tile.scene) else None
