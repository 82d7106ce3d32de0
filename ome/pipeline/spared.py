"""Keeps the files of a user when the folder of an artefact is replaced."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ome.errors import UserError
from ome.files import unused
from ome.pipeline.checksums import unlisted
from ome.pipeline.marks import read_if_whole
from ome.pipeline.remains import is_whole
from ome.progress import console

CHANGED: Final = ".changed"


def check_added(folder: Path) -> None:
    """Refuses to replace a folder of a finished artefact to which a user has added files.

    Raises:
        UserError: It holds files that ome did not write.
    """
    present = read_if_whole(folder)
    if present is None or present.files is None:
        return
    if others := unlisted(folder, present.files):
        raise UserError(
            f"{folder} holds files that ome did not write, the first is {others[0]}, and would be "
            "replaced: move them away"
        )


def set_changed_aside(folder: Path, changed: Sequence[str]) -> None:
    """Moves files that have changed out of a folder that will be replaced, except incomplete ones.

    Somebody may have edited them, for example polygons in a GIS.

    Args:
        folder: Folder of a finished artefact.
        changed: Names of files that are missing or differ from the folder's list, see `damaged`.
    """
    for name in changed:
        path = folder / name
        if path.is_file() and is_whole(path):
            kept = unused(folder.with_name(folder.name + CHANGED) / name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            path.rename(kept)
            console.print(f"[yellow]{path} has changed since ome wrote it[/]: moved to {kept}")
