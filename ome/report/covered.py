"""Ground area of each class, in the maps of the test scenes and of stage=predict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.data.scenes import SceneReader
from ome.data.splits import mapped_scenes
from ome.data.tiles import Tile
from ome.files import read_csv
from ome.geo.areas import Floats, PixelAreas
from ome.geo.raster import read_class_map
from ome.pipeline.layout import map_path
from ome.pipeline.manifest import Manifest
from ome.report.contents import Table, table

REFERENCE = "reference"


def mapped_areas(folders: Mapping[str, Path], reader: SceneReader) -> dict[str, Any] | None:
    """The areas of all mapped scenes together, by segmenter and in the reference.

    Args:
        folders: Of the segmenters, by the title of their column.
        reader: Reads the references.

    Returns:
        Title, note and table; None where no scene with a reference system is mapped.
    """
    names = list(reader.index.palette.names)
    every = mapped_scenes(reader.index)
    folders = {
        title: folder
        for title, folder in folders.items()
        if any(map_path(folder, scene).exists() for scene in every)
    }
    scenes = [
        scene
        for scene in every
        if all(map_path(folder, scene).exists() for folder in folders.values())
        and PixelAreas(reader.grid(scene.name)).unit == "m2"
    ]
    if not scenes or not folders:
        return None
    sums = {title: np.zeros(256) for title in folders}
    if all(scene.mask for scene in scenes):
        sums[REFERENCE] = np.zeros(256)
    for scene in scenes:
        areas = PixelAreas(reader.grid(scene.name))
        for title in sums:
            if title == REFERENCE:
                classes = reader.mask(Tile(scene.name, 0, 0, scene.height, scene.width))
            else:
                classes = read_class_map(map_path(folders[title], scene))
            sums[title] += _covered(areas, classes)
    rows = [[name, *(_metres(total[index]) for total in sums.values())] for index, name in enumerate(names)]
    return {
        "title": "Areas in the mapped scenes",
        "note": f"Square metres on the ground, of {len(scenes)} scene{'s' if len(scenes) > 1 else ''}.",
        "table": table(["class", *sums], rows),
    }


def predicted_areas(run: Path) -> list[dict[str, Any]]:
    """The areas of each scene that stage=predict has mapped in a run: title, note and table."""
    return [
        {"title": f"Areas in {folder.name}", "note": _network(record), "table": _as_written(rows)}
        for folder, record in predicted_scenes(run).items()
        if (rows := read_csv(_areas_of(folder)))
    ]


def predicted_scenes(run: Path) -> dict[Path, Manifest]:
    """The folders of the scenes that stage=predict has mapped in a run, with their manifests."""
    folders = sorted(path.parent for path in (run / "predict").glob("*/manifest.json"))
    read = {folder: Manifest.read(folder) for folder in folders}
    return {folder: record for folder, record in read.items() if record and _areas_of(folder).exists()}


def _areas_of(folder: Path) -> Path:
    return folder / f"{folder.name}_areas.csv"


def _network(record: Manifest) -> str:
    return f"Mapped by {record.counts['network']}."


def _as_written(rows: Sequence[Mapping[str, str]]) -> Table:
    header = {"class": "class", "pixels": "pixels", "percent": "percent", "area_m2": "m²"}
    kept = [key for key in header if key in rows[0]]
    body = [[_metres(float(row[key])) if key == "area_m2" else row[key] for key in kept] for row in rows]
    return table([header[key] for key in kept], body)


def _covered(areas: PixelAreas, classes: NDArray[np.uint8]) -> Floats:
    return areas.by_class(lambda row, height: classes[row : row + height])[1]


def _metres(area: float) -> str:
    return f"{area:,.0f}"
