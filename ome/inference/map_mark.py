"""Marks the maps in a folder, so that only files of the same scene are replaced."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ome.errors import UserError
from ome.files import read_json_if_whole, write_json
from ome.geo.flat import RECORD
from ome.geo.vsi import SceneAddress, full_address
from ome.inference.map_names import ENDINGS
from ome.inference.mapping import ROWS_FOLDER


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
    written = before.get("endings", ENDINGS) if before else ()  # earlier versions did not record them
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
    return mark if mark is not None and mark.keys() >= {"scene", "made_of"} else None
