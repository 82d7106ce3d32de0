"""Keeps the files of a user when the folder of an artefact is replaced."""

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Final

from ome.errors import UserError
from ome.pipeline.checksums import unlisted, unwritten
from ome.pipeline.marks import read_if_whole, written_in
from ome.pipeline.truncated_files import is_whole
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

    Somebody may have edited them, for example polygons in a GIS. SQLite keeps the last edits of a GeoPackage
    in a log beside it, which a closed program has added to the file.

    Args:
        folder: Folder of a finished artefact.
        changed: Names of files that are missing or differ from the folder's list, see `damaged`.
    """
    logs = [path for path in folder.rglob("*.gpkg-wal") if path.stat().st_size]
    for name in dict.fromkeys([*changed, *(str(path.relative_to(folder))[: -len("-wal")] for path in logs)]):
        path = folder / name
        if path.is_file() and is_whole(path):
            kept = _set_aside(path, folder, name, "has changed since ome wrote it")
            for ending in ("-wal", "-shm"):
                if (log := path.with_name(path.name + ending)).exists():
                    log.rename(kept.with_name(kept.name + ending))


def set_foreign_aside(partial: Path, folder: Path) -> None:
    """Moves files that the engine has not written out of a partial folder.

    Args:
        partial: The partial folder.
        folder: That of the finished artefact.
    """
    written = written_in(partial)
    for name in () if written is None else unwritten(partial, written):
        _set_aside(partial / name, folder, name, "was not written by ome")


def _set_aside(path: Path, folder: Path, name: str, why: str) -> Path:
    kept = _unused(folder.with_name(folder.name + CHANGED) / name)
    kept.parent.mkdir(parents=True, exist_ok=True)
    path.rename(kept)
    console.print(f"[yellow]{path} {why}[/]: moved to {kept}")
    return kept


def _unused(path: Path) -> Path:
    """The path, or the first with a number before its suffix that does not exist: city.2.gpkg."""
    numbered = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in count(2))
    return next(other for other in chain([path], numbered) if not other.exists())
