"""Ground area of each class in the maps of the test scenes and of stage=predict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ome.data.scene_index import Scene, mapped_scenes
from ome.data.scenes import SceneReader
from ome.files import read_csv
from ome.geo.areas import PixelAreas
from ome.geo.ellipsoid import Floats
from ome.geo.raster import open_class_map
from ome.pipeline.layout import AREAS, map_path
from ome.pipeline.manifest import NAME as MANIFEST
from ome.pipeline.manifest import Manifest
from ome.report.contents import Table, table

REFERENCE = "reference"


def mapped_areas(folders: Mapping[str, Path], reader: SceneReader) -> dict[str, Any] | None:
    """The total areas of all mapped scenes, by segmenter and in the reference.

    Args:
        folders: Folders of the segmenters, by the title of their column.
        reader: Reads the reference masks.

    Returns:
        Title, note and table; None if no scene with a coordinate reference system is mapped.
    """
    names = list(reader.index.palette.names)
    all_scenes = mapped_scenes(reader.index)
    folders = {
        title: folder
        for title, folder in folders.items()
        if any(map_path(folder, scene).exists() for scene in all_scenes)
    }
    scenes = [
        scene
        for scene in all_scenes
        if all(map_path(folder, scene).exists() for folder in folders.values())
        and PixelAreas(reader.grid(scene.name)).unit == "m2"
    ]
    if not scenes or not folders:
        return None
    sums = {title: np.zeros(256) for title in folders}
    if all(scene.mask for scene in scenes):
        sums[REFERENCE] = np.zeros(256)
    for scene in scenes:
        for title in sums:
            sums[title] += _areas_by_class(scene, reader, folders.get(title))
    rows = [[name, *(_metres(total[index]) for total in sums.values())] for index, name in enumerate(names)]
    return {
        "title": "Areas in the mapped scenes",
        "note": f"Square metres on the ground in {len(scenes)} scene{'s' if len(scenes) > 1 else ''}.",
        "table": table(["class", *sums], rows),
    }


def predicted_areas(run: Path) -> list[dict[str, Any]]:
    """The areas of each scene that stage=predict has mapped in a run: title, note and table."""
    return [
        {
            "title": f"Areas in {folder.name}",
            "note": f"Mapped by {manifest.counts['network']}.",
            "table": _area_table(rows),
        }
        for folder, manifest in predicted_scenes(run).items()
        if (rows := read_csv(_areas_path(folder)))
    ]


def predicted_scenes(run: Path) -> dict[Path, Manifest]:
    """The folders of the scenes that stage=predict has mapped in a run, with their manifests."""
    folders = sorted(path.parent for path in (run / "predict").glob(f"*/{MANIFEST}"))
    manifests = {folder: Manifest.read(folder) for folder in folders}
    return {
        folder: manifest
        for folder, manifest in manifests.items()
        if manifest and _areas_path(folder).exists()
    }


def _areas_path(folder: Path) -> Path:
    return folder / f"{folder.name}{AREAS}"


def _area_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """The rows of a table of areas as a table, without square metres if the file has none."""
    titles = {"class": "class", "pixels": "pixels", "percent": "percent", "area_m2": "m²"}
    keys = [key for key in titles if key in rows[0]]
    body = [[_metres(float(row[key])) if key == "area_m2" else row[key] for key in keys] for row in rows]
    return table([titles[key] for key in keys], body)


def _areas_by_class(scene: Scene, reader: SceneReader, folder: Path | None) -> Floats:
    """The areas in the map of a segmenter's folder; without a folder, in the reference."""
    areas = PixelAreas(reader.grid(scene.name))
    if folder is None:
        return areas.by_class(lambda row, height: reader.mask(scene.rows(row, height)))[1]
    with open_class_map(map_path(folder, scene)) as opened:
        return areas.by_class(lambda row, height: opened.values(row, 0, height, scene.width))[1]


def _metres(area: float) -> str:
    return f"{area:,.0f}"
