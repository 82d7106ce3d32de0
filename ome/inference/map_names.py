"""Names of a map's files and folder."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ome.data.file_names import folded
from ome.errors import UserError
from ome.geo.vsi import SceneAddress
from ome.inference.map_rows import MapOptions
from ome.pipeline.layout import AREAS, CONFIDENCE, PROBABILITIES

ENDINGS: Final = (".tif", ".tif.aux.xml", ".qml", ".gpkg", AREAS, CONFIDENCE, PROBABILITIES)
"""Endings of the names of a map's files, after the name of the map."""


def endings_of(options: MapOptions) -> tuple[str, ...]:
    """The endings of the files that a map has with these options."""
    optional = {
        CONFIDENCE: options.confidence,
        PROBABILITIES: options.probabilities,
        ".gpkg": options.polygons,
    }
    return tuple(ending for ending in ENDINGS if optional.get(ending, True))


def map_name(scene: SceneAddress) -> str:
    """The name of a scene's map, for its files and folder.

    Raises:
        UserError: The scene is the root of the file system, which has no name, or its name has a line break
            or another control character, which lists of files and GIS cannot hold.
    """
    if any(unicodedata.category(letter) in {"Cc", "Zl", "Zp"} for letter in str(scene)):
        raise UserError(f"{str(scene)!r} has a line break or another control character in it: rename it")
    if isinstance(scene, Path) and scene.name in {"", ".."}:
        scene = scene.resolve()
    name = scene.stem
    if not name:
        raise UserError(f"{scene} has no name for its map: give a scene, or a folder of scenes")
    # Names that begin with a dot or end in .partial are reserved for the engine.
    return f"_{name}_" if name.startswith(".") or name.lower().endswith(".partial") else name


def check_names(scenes: Sequence[SceneAddress], options: MapOptions) -> None:
    """Checks that the maps of scenes in one folder do not overwrite each other's files.

    Args:
        scenes: The scenes that are mapped into one folder.
        options: Outputs beside the class maps.

    Raises:
        UserError: Two maps would write the same file, see `folded`.
    """
    endings = endings_of(options)
    writers: dict[str, SceneAddress] = {}
    for scene in scenes:
        for file in (f"{map_name(scene)}{ending}" for ending in endings):
            if (other := writers.setdefault(folded(file), scene)) != scene:
                raise UserError(
                    f"the maps of {other} and {scene} would both write {file}: rename one of them"
                )


def check_folders(scenes: Sequence[SceneAddress]) -> None:
    """Checks that each scene of a list is mapped into its own folder.

    Raises:
        UserError: Two scenes have the same name, see `folded`.
    """
    by_folder: dict[str, SceneAddress] = {}
    for scene in scenes:
        name = map_name(scene)
        if (other := by_folder.setdefault(folded(name), scene)) != scene:
            raise UserError(
                f"the maps of {other} and {scene} would both lie in {name}: rename one of them, or map one "
                "by itself with --name NAME"
            )
