"""Names of a map's files and folder, and the mark by which only files of the same scene are replaced."""

import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ome.data.file_names import folded
from ome.data.names import LINE_BREAKERS
from ome.errors import UserError
from ome.files import read_json_if_whole, write_json
from ome.geo.flat import RECORD
from ome.geo.vsi import SceneAddress, full_address
from ome.inference.map_rows import MapOptions
from ome.inference.mapping import ROWS_FOLDER
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
    if any(unicodedata.category(letter) in LINE_BREAKERS for letter in str(scene)):
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


def mark_map(
    folder: Path, name: str, scene: SceneAddress, dependencies: list[Any], endings: Sequence[str] = ENDINGS
) -> None:
    """Writes `.<name>.json` with the scene of a map, its files, and everything else that it depends on.

    If the dependencies have changed, the rows of an interrupted call are discarded, and so are files of the
    earlier map that the new one does not have.

    Args:
        folder: Folder of the map.
        name: Name of the map, see `map_name`.
        scene: The scene.
        dependencies: Values that JSON can represent.
        endings: Those of the `ENDINGS` that the map will have.

    Raises:
        UserError: The folder has files of these names without a mark of this scene, or is a file.
    """
    made_of = json.loads(json.dumps(dependencies))
    mark, rows = folder / f".{name}.json", folder / ROWS_FOLDER
    before = _read_mark(mark)
    files = (*([] if before else [mark]), rows, *(folder / f"{name}{end}" for end in ENDINGS))
    existing = [path for path in files if path.exists()]
    # The map of a scene named NAME_confidence has the same path as the confidence of NAME.
    others = [path for path in existing if path.stem != name and _read_mark(folder / f".{path.stem}.json")]
    if existing and (before is None or not _is_of(before, scene, made_of)):
        others = others or existing
    written = before["endings"] if before else ()
    others += [folder / f"{name}{end}" for end in endings if end not in written]
    others = [path for path in others if path.exists()]
    if others:
        raise UserError(
            f"{others[0]} exists and is not a map of {scene}: choose another folder, or move it away"
        )
    if before is not None and before["made_of"] != made_of:
        (rows / RECORD).unlink(missing_ok=True)
        for end in set(written) - set(endings):
            (folder / f"{name}{end}").unlink(missing_ok=True)
    write_json(mark, {"scene": full_address(scene), "made_of": made_of, "endings": list(endings)})


def _is_of(mark: dict[str, Any], scene: SceneAddress, made_of: list[Any]) -> bool:
    """Whether a mark is of a scene, which may have moved: then its first file has the same size and time."""
    before = mark["scene"]
    if before == full_address(scene):
        return True
    is_moved = isinstance(scene, Path) and Path(before).name == scene.name and not os.path.lexists(before)
    return is_moved and mark["made_of"][:1] == made_of[:1]


def _read_mark(path: Path) -> dict[str, Any] | None:
    """Reads a mark; None if the file does not exist or is something else."""
    mark = read_json_if_whole(path)
    return mark if mark is not None and mark.keys() >= {"scene", "made_of", "endings"} else None
