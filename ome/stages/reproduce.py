"""A finished run -> a repetition of it, and whether each stage's files are identical byte by byte."""

import filecmp
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from ome.config.raw_data import is_raw_set
from ome.damage import read_undamaged
from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import noted, write_csv
from ome.pipeline.artifacts import Artefact, find_same, inherited_runs
from ome.pipeline.checksums import NAME as LISTING
from ome.pipeline.config_guard import EVERYTHING
from ome.pipeline.engine import execute
from ome.pipeline.layout import PAGE
from ome.pipeline.manifest import NAME as MANIFEST
from ome.pipeline.manifest import RESOLVED, Manifest
from ome.pipeline.registry import STAGES, find_stage
from ome.pipeline.stage import Stage, Work
from ome.progress import console, print_table
from ome.tracking.stages import stage_tracker

NOT_COMPARED = {MANIFEST, LISTING, PAGE}
"""Files that contain times, or list the other files in the order in which they were written."""


class Outcome(NamedTuple):
    """Comparison of a stage's files with those of the first run.

    Attributes:
        stage: Name of the stage.
        files: Number of compared files.
        differing: Files that differ or exist in one of the two folders only.
    """

    stage: str
    files: int
    differing: list[str]

    def __str__(self) -> str:
        """One line, e.g. `3 of 40 differ, the first is masks/a.png`."""
        if not self.files:
            return "not repeated: the raw data do not exist"
        if not self.differing:
            return "equal"
        return f"{len(self.differing)} of {self.files} differ, the first is {self.differing[0]}"


def run(work: Work) -> dict[str, Any]:
    """Repeats every stage of the run with the settings in its manifest, then compares the files."""
    config = _configuration(_source(work.config))
    artefacts = _finished_stages(config, _source(work.config))
    folders: dict[str, Path] = {}
    outcomes: list[Outcome] = []
    for part in ("run", "scenes"):
        noted(work.folder / part)
    for name, first in artefacts.items():
        if name == "prepare" and not _has_raw(config):
            folders[name] = first.folder
            outcomes.append(Outcome(name, 0, []))
            continue
        recorded = _as_recorded(config, first.manifest, work)
        execute(find_stage(name, recorded), recorded, folders=folders, on_finish=stage_tracker(recorded))
        outcomes.append(compare_folders(name, first.folder, folders[name]))
        _warn_of_versions(first.manifest, Manifest.read(folders[name]))
    if is_rank_zero():
        lines = [(one.stage, one.files, str(one)) for one in outcomes]
        write_csv(work.folder / "reproduction.csv", ("stage", "files", "artefacts"), lines)
        shown = [(stage, str(files), outcome) for stage, files, outcome in lines]
        print_table(f"repetition of {work.settings.run}", ("stage", "files", "artefacts"), shown, texts=3)
    return {"stages": len(outcomes), "equal": sum(str(one) == "equal" for one in outcomes)}


def compare_folders(stage: str, first: Path, second: Path) -> Outcome:
    """Compares two folders of a stage file by file, by their bytes, except for `NOT_COMPARED`."""
    in_first, in_second = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (first, second)
    )
    compared = sorted(path for path in in_first | in_second if path.name not in NOT_COMPARED)
    in_both = in_first & in_second
    differing = [
        str(path)
        for path in compared
        if path not in in_both or not filecmp.cmp(first / path, second / path, shallow=False)
    ]
    return Outcome(stage, len(compared), differing)


def _source(config: DictConfig) -> Path:
    """The folder of the run to repeat."""
    run = config.stage.run
    if not run or not Path(run).is_dir():
        raise UserError(
            f"stage.reproduce.run={run} is not the folder of a run: type stage.reproduce.run=runs/<name>"
        )
    return Path(run)


def _configuration(folder: Path) -> DictConfig:
    """The configuration of the run's last command with raw data; the manifests hold those of the stages."""
    files = [*folder.glob(f"logs/*/{RESOLVED}"), *folder.glob(RESOLVED)]
    if not files:
        raise UserError(f"{folder} has no {RESOLVED}: none of that run's commands has finished")
    files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    whole = [config for config in read_undamaged(files) if {"dataset", "scenes", "inherit"} <= {*config}]
    if not whole:
        raise UserError(
            f"{files[0]} is damaged: repeat a command of that run, such as stage=labels, which writes another"
        )
    latest: list[DictConfig] = [OmegaConf.create(config) for config in whole]
    # A command such as `predict` does not name the raw data.
    return next(filter(_has_raw, latest), latest[0])


def _finished_stages(config: DictConfig, folder: Path) -> dict[str, Artefact]:
    """The finished stages of the run and the stages that they depend on, in the order of the pipeline."""
    runs = [folder, *inherited_runs(config)]
    artefacts = {
        name: Artefact(folder / name, manifest)
        for name in STAGES
        if (manifest := Manifest.read(folder / name)) is not None
    }
    if not artefacts:
        raise UserError(f"{folder} has no finished stage")
    unread = list(artefacts.values())
    while unread:
        artefact = unread.pop()
        for name, fingerprint in artefact.manifest.inputs.items():
            if name in artefacts:
                continue
            folders = (run / name for run in runs)
            required = _scenes(config) if name == "prepare" else find_same(folders, fingerprint)
            if required is None:
                raise UserError(
                    f"the result of stage={name}, which {artefact.folder} depends on, does not exist"
                )
            artefacts[name] = required
            unread.append(required)
    return {name: artefacts[name] for name in STAGES if name in artefacts}


def _scenes(config: DictConfig) -> Artefact | None:
    folder = Path(config.scenes)
    manifest = Manifest.read(folder)
    return Artefact(folder, manifest) if manifest else None


def _has_raw(config: DictConfig) -> bool:
    return is_raw_set(config) and Path(config.dataset.raw).is_dir()


def _as_recorded(config: DictConfig, manifest: Manifest, work: Work) -> DictConfig:
    """The configuration that a stage was run with, but with new folders."""
    repeated = config.copy()
    with open_dict(repeated):
        for key, value in manifest.config.items():
            if key != "sources":
                OmegaConf.update(repeated, key, value, merge=False, force_add=True)
        repeated.run_dir = str(work.folder / "run")
        repeated.scenes = str(work.folder / "scenes")
        repeated.inherit = None
        repeated.logger = work.config.logger
    return repeated


def _warn_of_versions(first: Manifest, second: Manifest | None) -> None:
    """Warns about packages whose version differs from that of the first run."""
    now: Mapping[str, str] = second.versions if second else {}
    for name, version in first.versions.items():
        if now.get(name) != version:
            console.print(f"[yellow]{name}[/] was {version}, is {now.get(name)}")


def _sources(config: DictConfig) -> list[Any]:
    """The fingerprints of the run's stages."""
    folder = _source(config)
    manifests = {path.parent.name: Manifest.read(path.parent) for path in folder.glob(f"*/{MANIFEST}")}
    return sorted((name, manifest.fingerprint) for name, manifest in manifests.items() if manifest)


STAGE = Stage("reproduce", run, free_keys=(EVERYTHING,), external_files=_sources)
