"""Marks the maps in a folder, so that only files of the same scene are replaced."""

import json
from pathlib import Path
from typing import Any

from ome.damage import DamagedError
from ome.errors import UserError
from ome.files import read_json, write_json
from ome.geo.flat import RECORD
from ome.geo.vsi import SceneAddress, full_address
from ome.inference.map_names import ENDINGS
from ome.inference.mapping import ROWS_FOLDER


def mark_map(folder: Path, name: str, scene: SceneAddress, dependencies: list[Any]) -> None:
    """Writes `.<name>.json` with the scene of a map and everything else that the map depends on.

    If the dependencies have changed, the rows of an interrupted call are discarded.

    Args:
        folder: Folder of the map.
        name: Name of the map, see `map_name`.
        scene: The scene.
        dependencies: Values that JSON can represent.

    Raises:
        UserError: The folder has files of these names without a mark of this scene, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give an existing or a new folder")
    made_of = json.loads(json.dumps(dependencies))
    mark, rows = folder / f".{name}.json", folder / ROWS_FOLDER
    before = _read_mark(mark)
    files = (*([] if before else [mark]), rows, *(folder / f"{name}{end}" for end in ENDINGS))
    existing = [path for path in files if path.exists()]
    # The map of a scene named NAME_confidence has the same path as the confidence of NAME.
    others = [path for path in existing if path.stem != name and _read_mark(folder / f".{path.stem}.json")]
    if existing and (before is None or before["scene"] != full_address(scene)):
        others = others or existing
    if others:
        raise UserError(
            f"{others[0]} exists and is not a map of {scene}: choose another folder, or move it away"
        )
    if before is not None and before["made_of"] != made_of and rows.exists():
        (rows / RECORD).unlink(missing_ok=True)
    write_json(mark, {"scene": full_address(scene), "made_of": made_of})


def _read_mark(path: Path) -> dict[str, Any] | None:
    """Reads a mark; None if the file does not exist or is something else."""
    try:
        mark = read_json(path)
    except (OSError, DamagedError):
        return None
    return mark if mark.keys() >= {"scene", "made_of"} else None
