"""The log folder of a command, which Hydra creates before anything is checked, and later commands read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ome.config.folders import NEW
from ome.errors import UserError
from ome.pipeline.manifest import RESOLVED

_HYDRAS: Final = ("config.yaml", "hydra.yaml", "overrides.yaml")
"""Names of the files in which Hydra writes the settings down."""
_CONFIG_MODULE: Final = "ome.conf"
"""Hydra writes down where the configuration is from."""
LOG: Final = "run.log"
"""Hydra's log, named after `ome.run`."""
_CHOOSE: Final = "omit it, and choose the folder of the run by run_dir= or output="


def check_written(config: DictConfig) -> None:
    """Refuses settings of Hydra by which it would write into files or folders of something else.

    `settings_folder` cannot: a command that sets `hydra.output_subdir` has replaced it.

    Args:
        config: The configuration of a command, before Hydra has written anything.

    Raises:
        UserError: There is such a setting.
    """
    hydra: Any = OmegaConf.to_container(config.hydra, resolve=False)
    name, job = hydra["output_subdir"], hydra["job"]["name"]
    if hydra["job"]["chdir"]:
        raise UserError("hydra.job.chdir=true: relative paths start where the command is typed: omit it")
    if name not in {None, "${settings_folder:config}"}:
        raise UserError(f"hydra.output_subdir={name}: the settings of a command are in config: {_CHOOSE}")
    handlers = (hydra["job_logging"] or {}).get("handlers", {}).values()
    for log in (str(handler["filename"]) for handler in handlers if "filename" in handler):
        if not log.startswith("${hydra.runtime.output_dir}/") or ".." in log or "/" in job:
            raise UserError(f"hydra.job_logging would write into {log}: {_CHOOSE}")
    if hydra["mode"] == RunMode.MULTIRUN:
        subdir = hydra["sweep"]["subdir"]
        if "${hydra" not in subdir or subdir.startswith("/") or ".." in subdir:
            raise UserError(f"hydra.sweep.subdir={subdir} does not name each job differently: omit it")
        _check_folder("hydra.sweep.dir", config.hydra.sweep.dir, "multirun.yaml", "multirun.yaml")
    else:
        log = f"{job}.log" if handlers else ""
        _check_folder("hydra.run.dir", config.hydra.run.dir, log, "config/hydra.yaml")


def _check_folder(key: str, folder: str, written: str, settings: str) -> None:
    """Refuses a folder of Hydra without a name, or with a file that Hydra has not written but would."""
    if not folder.strip():
        raise UserError(f"{key}= is empty: {_CHOOSE}")
    if written and (Path(folder) / written).exists() and not _is_ours(Path(folder) / settings):
        _refuse(Path(folder) / written, key)


def _is_ours(settings: Path) -> bool:
    """Whether Hydra wrote down settings of this program in a file."""
    return settings.exists() and _CONFIG_MODULE.encode() in settings.read_bytes()


def _refuse(file: Path, key: str) -> NoReturn:
    raise UserError(
        f"{file} would be overwritten, and ome has not written it: omit {key}, or choose an empty folder"
    )


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
    files = (*(log / name / file for file in _HYDRAS), log / RESOLVED)
    existing = [path for path in files if path.exists()]
    if existing and not _is_ours(log / name / "hydra.yaml"):
        _refuse(existing[0], "hydra.run.dir")
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
    if (output := log / LOG).exists() and not output.stat().st_size:
        output.unlink()
    for folder in (settings, log, *log.parents):
        if folder in run.parents and folder not in NEW:
            break
        with suppress(OSError):
            folder.rmdir()
