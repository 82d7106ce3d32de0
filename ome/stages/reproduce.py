"""A finished run -> a repetition, and whether each stage's artefacts are identical byte by byte."""

import filecmp
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict
from rich.table import Table

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import write_csv
from ome.pipeline.artifacts import Artefact, find_same, inherited_runs
from ome.pipeline.checksums import NAME as LISTING
from ome.pipeline.declared import EVERYTHING
from ome.pipeline.engine import execute
from ome.pipeline.layout import PAGE, RESOLVED
from ome.pipeline.manifest import NAME as MANIFEST
from ome.pipeline.manifest import Manifest
from ome.pipeline.registry import STAGES
from ome.pipeline.stage import Stage, Work
from ome.progress import console
from ome.tracking.stages import stage_tracker

NOT_COMPARED = {MANIFEST, LISTING, PAGE}
"""Files that hold times, or list the files in the order of theirs."""


class Outcome(NamedTuple):
    """How a stage's artefacts compare with those of the first run.

    Attributes:
        stage: Name of the stage.
        files: Number of files compared.
        differing: Files that differ or are in one of the two only.
    """

    stage: str
    files: int
    differing: list[str]

    def __str__(self) -> str:
        """In words, e.g. `3 of 40 differ, the first is masks/a.png`."""
        if not self.files:
            return "not repeated: the raw data are not there"
        if not self.differing:
            return "equal"
        return f"{len(self.differing)} of {self.files} differ, the first is {self.differing[0]}"


def run(work: Work) -> dict[str, Any]:
    """Repeats every stage of the run with the settings in its manifest, then compares the files."""
    config = _configuration(_source(work.config))
    story = _story(config, _source(work.config), list(STAGES))
    folders: dict[str, Path] = {}
    outcomes: list[Outcome] = []
    for name, first in story.items():
        if name == "prepare" and not _has_raw(config):
            folders[name] = first.folder
            outcomes.append(Outcome(name, 0, []))
            continue
        recorded = _as_recorded(config, first.manifest, work)
        execute(STAGES[name], recorded, folders=folders, on_finish=stage_tracker(recorded))
        outcomes.append(compare_folders(name, first.folder, folders[name]))
        _say_versions(first.manifest, Manifest.read(folders[name]))
    if is_rank_zero():
        lines = [(one.stage, one.files, str(one)) for one in outcomes]
        write_csv(work.folder / "reproduction.csv", ("stage", "files", "artefacts"), lines)
        shown = Table("stage", "files", "artefacts", title=f"{work.settings.run} once more")
        for line in lines:
            shown.add_row(*map(str, line))
        console.print(shown)
    return {"stages": len(outcomes), "equal": sum(str(one) == "equal" for one in outcomes)}


def compare_folders(stage: str, first: Path, second: Path) -> Outcome:
    """Compares the files of two folders by their bytes; manifests, lists and the report's page hold times."""
    found = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (first, second)
    ]
    every = sorted(path for path in found[0] | found[1] if path.name not in NOT_COMPARED)
    both = found[0] & found[1]
    differing = [
        str(path)
        for path in every
        if path not in both or not filecmp.cmp(first / path, second / path, shallow=False)
    ]
    return Outcome(stage, len(every), differing)


def _source(config: DictConfig) -> Path:
    given = config.stage.run
    if not given or not Path(given).is_dir():
        raise UserError(
            f"stage.reproduce.run={given} is not the folder of a run: type stage.reproduce.run=runs/<name>"
        )
    return Path(given)


def _configuration(folder: Path) -> DictConfig:
    """Configuration of the run's last command with raw data; the rest of each stage is in its manifest."""
    saved = [*folder.glob(f"logs/*/{RESOLVED}"), *folder.glob(RESOLVED)]
    if not saved:
        raise UserError(f"{folder} holds no {RESOLVED}: no command of that run has come to its end")
    latest: list[DictConfig] = []
    for path in sorted(saved, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig):
            raise UserError(f"{path} is damaged: delete it")
        latest.append(config)
    # A map, for one, is asked for without naming the raw data.
    return next(filter(_has_raw, latest), latest[0])


def _story(config: DictConfig, folder: Path, order: list[str]) -> dict[str, Artefact]:
    """The finished stages of the run and those they were made from, in the order of the stages."""
    runs = [folder, *inherited_runs(config)]
    own = {name: manifest for name in order if (manifest := Manifest.read(folder / name)) is not None}
    if not own:
        raise UserError(f"{folder} has no finished stage")
    story = {name: Artefact(folder / name, manifest) for name, manifest in own.items()}
    unread = list(story.values())
    while unread:
        artefact = unread.pop()
        for name, fingerprint in artefact.manifest.inputs.items():
            if name in story:
                continue
            before = _scenes(config) if name == "prepare" else find_same(runs, name, fingerprint)
            if before is None:
                raise UserError(f"the result of stage={name} that {artefact.folder} was made from is gone")
            story[name] = before
            unread.append(before)
    return {name: story[name] for name in order if name in story}


def _scenes(config: DictConfig) -> Artefact | None:
    folder = Path(config.scenes)
    manifest = Manifest.read(folder)
    return Artefact(folder, manifest) if manifest else None


def _has_raw(config: DictConfig) -> bool:
    return not OmegaConf.is_missing(config.dataset, "raw") and Path(config.dataset.raw).is_dir()


def _as_recorded(config: DictConfig, manifest: Manifest, work: Work) -> DictConfig:
    """The configuration that a stage was run with, in the new folder."""
    folders = config.copy()
    with open_dict(folders):
        for key, value in manifest.config.items():
            if key != "sources":
                OmegaConf.update(folders, key, value, merge=False, force_add=True)
        folders.run_dir = str(work.folder / "run")
        folders.scenes = str(work.folder / "scenes")
        folders.inherit = None
        folders.logger = work.config.logger
    return folders


def _say_versions(first: Manifest, second: Manifest | None) -> None:
    now: Mapping[str, str] = second.versions if second else {}
    for name, version in first.versions.items():
        if is_rank_zero() and now.get(name) != version:
            console.print(f"[yellow]{name}[/] was {version}, is {now.get(name)}", highlight=False)


def _sources(config: DictConfig) -> list[Any]:
    folder = _source(config)
    manifests = {path.parent.name: Manifest.read(path.parent) for path in folder.glob(f"*/{MANIFEST}")}
    return sorted((name, manifest.fingerprint) for name, manifest in manifests.items() if manifest)


STAGE = Stage("reproduce", run, free_keys=(EVERYTHING,), external_files=_sources)
