"""The log folder of a command, which Hydra creates before anything is checked, and later commands read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ome.errors import UserError


@contextmanager
def removed_if_refused(log: Path, run: Path) -> Iterator[None]:
    """Removes the log of a command that a user error ends before it has changed the run.

    Otherwise later commands would take its settings for those of the run.

    Args:
        log: The folder of the log.
        run: The folder of the run.
    """
    run = Path(os.path.abspath(run))  # noqa: PTH100 - as Hydra does, without following links
    before = _state(run)
    try:
        yield
    except UserError:
        if log.is_relative_to(run) and log != run and _state(run) == before:
            _remove(log, run)
        raise


def _state(run: Path) -> set[tuple[str, int]]:
    """The folders of stages, finished and partial, with their modification times."""
    folders = (path for path in run.glob("*") if path.is_dir() and path.name != "logs")
    return {(path.name, path.stat().st_mtime_ns) for path in folders}


def _remove(log: Path, run: Path) -> None:
    """Removes the files that Hydra wrote, and folders that are empty then."""
    for path in (log / "config").glob("*.yaml"):
        path.unlink()
    for path in log.glob("*.log"):
        if not path.stat().st_size:
            path.unlink()
    for folder in (log / "config", log, *log.parents):
        with suppress(OSError):
            folder.rmdir()
        if folder == run:
            break
