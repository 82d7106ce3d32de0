"""The report's pictures: what people would rather see than read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ome.data.cams import cam_path, read_cams
from ome.data.scenes import Scene, SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile, evenly_spaced
from ome.files import read_csv
from ome.geo.raster import read_class_map, read_png
from ome.scoring.figures import save_confusion, save_curves
from ome.scoring.panels import PanelRow, save_cam_panel, save_panel
from ome.stages.labels import read_tag_table
from ome.stages.pseudo import mask_path
from ome.stages.scored import Row
from ome.stages.seg import TITLES
from ome.stages.segmenting import map_path, mapped_scenes
from ome.stages.stage import Work

CAM_TITLES = {"cam": "Class activation maps", "affinity": "Class activation maps after the random walk"}

LARGEST_SCENE = 512
"""Pixels of a scene's longer side in a panel; larger scenes are thinned out."""


def draw_pictures(work: Work, reader: SceneReader, rows: Sequence[Row]) -> dict[str, Path]:
    """Draws what the finished stages have to show.

    Args:
        work: Its inputs are the finished stages; the pictures are written to `work.folder`.
        reader: Reads images and references.
        rows: The scores; the confusion of the last segmenter with weak labels is drawn.

    Returns:
        The pictures' files by title, in the order of the story.
    """
    labels = work.inputs["labels"]
    drawn = {
        "Tags: tiles that show a class, and tiles dropped by the filter": labels / "tags.png",
        "Co-occurrence of classes in the tiles that train the classifier": labels / "cooccurrence.png",
    }
    table = read_tag_table(labels, reader.index).select("train", tagged=True)
    # Tiles of a single class have nothing to tell apart.
    mixed = [tile for tile in table.tiles if table.by_name[tile.name].sum() > 1]
    tiles = evenly_spaced(mixed or table.tiles, work.settings.tiles)
    for stage, title in CAM_TITLES.items():
        if stage in work.inputs and (work.inputs[stage] / "cams").is_dir():
            drawn |= _draw_cams(work, reader, table, tiles, stage, title)
    if "pseudo" in work.inputs:
        drawn["Pseudo masks and weights"] = _draw_pseudo_masks(work, reader, tiles)
    if "seg" in work.inputs:
        drawn |= _draw_predictions(work, reader)
    weak = [row for row in rows if row.name.startswith(TITLES["weak"])]
    if weak:
        path = work.folder / "confusion.png"
        save_confusion(path, weak[-1].scores.matrix, reader.index.palette.names)
        drawn[f"Confusion of {weak[-1].name}"] = path
    return drawn | _draw_histories(work)


def _reference(reader: SceneReader, tile: Tile) -> NDArray[np.uint8] | None:
    return reader.mask(tile) if reader.has_mask(tile.scene) else None


def _draw_cams(
    work: Work, reader: SceneReader, table: TagTable, tiles: Sequence[Tile], stage: str, title: str
) -> dict[str, Path]:
    names = reader.index.palette.names
    drawn = {}
    for tile in tiles:
        path = work.folder / stage / f"{tile.name}.png"
        cams = read_cams(cam_path(work.inputs[stage] / "cams", tile), len(names))
        save_cam_panel(path, reader.display(tile), cams, table.by_name[tile.name], names)
        drawn[f"{title} of {tile.name}"] = path
    return drawn


def _draw_pseudo_masks(work: Work, reader: SceneReader, tiles: Sequence[Tile]) -> Path:
    folder, palette = work.inputs["pseudo"], reader.index.palette
    rows = [
        PanelRow(
            title=tile.name,
            image=reader.display(tile),
            cam_argmax=read_png(mask_path(folder, "cam_argmax", tile)),
            pseudo_mask=read_png(mask_path(folder, "masks", tile)),
            weight=read_png(mask_path(folder, "weights", tile)),
            reference=_reference(reader, tile),
        )
        for tile in tiles
    ]
    path = work.folder / "pseudo_masks.png"
    save_panel(path, rows, palette.names, list(palette.classes.values()))
    return path


def _draw_predictions(work: Work, reader: SceneReader) -> dict[str, Path]:
    """One panel for each segmenter: the weakly supervised ones of all rounds, and the upper bound."""
    palette = reader.index.palette
    folders = {title: work.inputs["seg"] / target for target, title in TITLES.items()}
    if "refine" in work.inputs:
        for folder in sorted(work.inputs["refine"].glob("round_*")):
            folders[f"{TITLES['weak']} (round {folder.name.removeprefix('round_')})"] = folder
    scenes = mapped_scenes(reader.index)
    drawn = {}
    for title, folder in folders.items():
        rows = [
            _scene_row(reader, scene, map_path(folder, scene))
            for scene in evenly_spaced(scenes, work.settings.tiles)
            if map_path(folder, scene).exists()
        ]
        if rows:
            path = work.folder / f"{folder.name}.png"
            save_panel(path, rows, palette.names, list(palette.classes.values()))
            drawn[f"Maps: {title}"] = path
    return drawn


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


def _draw_histories(work: Work) -> dict[str, Path]:
    """The training curves of every training that left a history."""
    drawn = {}
    for stage, folder in work.inputs.items():
        for history in sorted(folder.rglob("history.csv")):
            name = "_".join([stage, *history.parent.relative_to(folder).parts])
            path = work.folder / "curves" / f"{name}.png"
            save_curves(path, _curves(history))
            drawn[f"Training of {name.replace('_', ' ')}"] = path
    return drawn


def _curves(history: Path) -> dict[str, tuple[list[int], list[float]]]:
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for row in read_csv(history):
        steps, values = curves.setdefault(row["name"], ([], []))
        steps.append(int(row["step"]))
        values.append(float(row["value"]))
    return curves
