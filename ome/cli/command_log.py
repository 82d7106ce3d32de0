"""The folder of a command's log: Hydra makes it before anything is checked, and later commands read it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ome.errors import UserError

_HYDRAS: Final = ("config.yaml", "hydra.yaml", "overrides.yaml")
"""Names of the files in which Hydra writes the settings down."""


@contextmanager
def kept_if_it_worked(log: Path, settings: str | None, run: Path) -> Iterator[None]:
    """Removes the log of a command that a mistake ends before it has changed the run.

    It says nothing, and its settings would pass for those of the run.

    Args:
        log: The folder of the log.
        settings: Name of the folder in it that Hydra wrote the settings into; None where it wrote nothing,
            and `log` is any folder that a person works in.
        run: The folder of the run.
    """
    run = Path(os.path.abspath(run))  # noqa: PTH100 - as Hydra does, without following links
    before = _state(run)
    try:
        yield
    except UserError:
        if settings and log.is_relative_to(run) and log != run and _state(run) == before:
            _remove(log, log / settings, run)
        raise


def _state(run: Path) -> set[tuple[str, int]]:
    """What stages leave: their folders, and those of what they are making."""
    folders = (path for path in run.glob("*") if path.is_dir() and path.name != "logs")
    return {(path.name, path.stat().st_mtime_ns) for path in folders}


def _remove(log: Path, settings: Path, run: Path) -> None:
    """Removes what Hydra wrote, and the folders in which nothing else is."""
    for name in _HYDRAS:
        (settings / name).unlink(missing_ok=True)
    for path in log.glob("*.log"):
        if not path.stat().st_size:
            path.unlink()
    for folder in (settings, log, *log.parents):
        with suppress(OSError):
            folder.rmdir()
        if folder == run:
            break
