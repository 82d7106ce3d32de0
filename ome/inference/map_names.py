"""Names of a map's files and folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ome.errors import UserError
from ome.geo.vsi import SceneAddress
from ome.inference.map_rows import MapOptions

ENDINGS: Final = (
    *(".tif", ".tif.aux.xml", ".qml", ".gpkg", "_areas.csv"),
    *("_confidence.tif", "_probabilities.tif"),
)
"""What the names of a map's files end with, after the name of the map."""


def map_name(scene: SceneAddress) -> str:
    """The name of a scene's map, for its files and folder.

    Raises:
        UserError: The scene is the root of the disk.
    """
    if isinstance(scene, Path) and scene.name in {"", ".."}:
        scene = scene.resolve()
    name = scene.stem
    if not name:
        raise UserError(f"no map can be named after {scene}: give a scene, or a folder of scenes")
    # The engine's own names begin with a dot, or end like this.
    return f"_{name}_" if name.startswith(".") or name.lower().endswith(".partial") else name


def check_names(scenes: Sequence[SceneAddress], options: MapOptions) -> None:
    """Refuses scenes whose maps would overwrite one another's files.

    Args:
        scenes: Those that are mapped into one folder.
        options: What is made beside the class maps.

    Raises:
        UserError: Two of them would write one file, on a disk that ignores case too.
    """
    left_out = {
        "_confidence.tif": not options.confidence,
        "_probabilities.tif": not options.probabilities,
    }
    endings = [ending for ending in ENDINGS if not left_out.get(ending)]
    writers: dict[str, SceneAddress] = {}
    for scene in scenes:
        for file in (f"{map_name(scene)}{ending}" for ending in endings):
            if (other := writers.setdefault(file.casefold(), scene)) != scene:
                raise UserError(
                    f"the maps of {other} and {scene} would both write {file}: rename one of them"
                )


def check_folders(scenes: Sequence[SceneAddress]) -> None:
    """Refuses scenes that would share a folder, which each is mapped into on its own.

    Raises:
        UserError: Two have one name, on a disk that ignores case too.
    """
    owners: dict[str, SceneAddress] = {}
    for scene in scenes:
        name = map_name(scene)
        if (other := owners.setdefault(name.casefold(), scene)) != scene:
            raise UserError(
                f"the maps of {other} and {scene} would both lie in {name}: rename one of them, or map one "
                "into another run_dir"
            )
