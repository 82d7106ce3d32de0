"""The log folder of a command, which Hydra creates before anything is checked, and later commands read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from omegaconf import DictConfig, OmegaConf

from ome.config.folders import NEW
from ome.errors import UserError

_HYDRAS: Final = ("config.yaml", "hydra.yaml", "overrides.yaml")
"""Names of the files in which Hydra writes the settings down."""
_RESOLVED: Final = "resolved.yaml"
_CONFIG_MODULE: Final = "ome.conf"
"""Hydra writes down where the configuration is from."""


def settings_folder(name: str, *, _root_: DictConfig) -> str:
    """A resolver that returns the name of the folder into which Hydra writes the settings, in the log folder.

    Raises:
        UserError: A file in its place is not from Hydra, which would overwrite it: `hydra.run.dir` is a
            folder of something else.
    """
    folder = OmegaConf.select(_root_, "hydra.runtime.output_dir", throw_on_missing=False)
    if not folder:  # nothing runs: --cfg
        return name
    log = Path(str(folder))
    there = [path for path in (*(log / name / each for each in _HYDRAS), log / _RESOLVED) if path.exists()]
    written = log / name / "hydra.yaml"
    if there and not (written.exists() and _CONFIG_MODULE.encode() in written.read_bytes()):
        raise UserError(
            f"{there[0]} would be overwritten, and ome has not written it: "
            "omit hydra.run.dir, or choose an empty folder"
        )
    return name


@contextmanager
def removed_if_refused(log: Path, settings: str | None, run: Path) -> Iterator[None]:
    """Removes the log of a command that a mistake ends before it has changed the run.

    Otherwise later commands would take its settings for those of the run.

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
    """The folders of stages, finished and partial, with their modification times."""
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
        if folder in run.parents and folder not in NEW:
            break
        with suppress(OSError):
            folder.rmdir()
