"""Where the finished results of earlier stages lie: in this run, or in one that it inherits from.

What lies in a run's own folder was put there by its user, stage by stage, and is read as long as its parts
were made from one another. What lies in another run was made for that one, and is read only where it fits.
"""

import difflib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import read_json
from ome.pipeline.declared import FREE
from ome.pipeline.manifest import NAME, Manifest
from ome.progress import console
from ome.scoring.spread import flatten

TRAINER_KEYS = ("trainer.accelerator", "trainer.precision")
"""Settings of the hardware that trainings always record."""

_NOT_COMPARED = {"stage", "sources", "trainer.accelerator", "trainer.precision"}
"""Of an earlier stage: its settings, which a command for a later stage does not know, and where it ran."""

_PATHS = {"weights", "encoder_weights", "checkpoint", "tags", "masks", "cams", "scene", "others"}
"""Last words of the settings that may be paths."""

INHERITED = "inherited.json"
"""File in a run's logs of a stage: in which other run its result was found."""


class Artefact(NamedTuple):
    """A finished stage."""

    folder: Path
    manifest: Manifest


def stage_folder(config: DictConfig, name: str) -> Path:
    """The folder of a stage: prepared scenes are shared between runs, all else belongs to one run."""
    return Path(config.scenes) if name == "prepare" else Path(config.run_dir) / name


def matching_folders(pattern: str) -> list[Path]:
    """The folder of that name, or those that match it as a pattern, in order of their names."""
    if Path(pattern).is_dir():  # a sweep's folders have brackets in their names
        return [Path(pattern)]
    # An absolute pattern is looked up from the root; Path.glob takes relative ones only.
    start = Path(Path(pattern).anchor)
    return sorted(start.glob(str(Path(pattern).relative_to(start))))


def listed(patterns: str | Iterable[str] | None) -> list[str]:
    """One pattern, several or none, as a list."""
    if not patterns:
        return []
    return [patterns] if isinstance(patterns, str) else list(patterns)


def inherited_runs(config: DictConfig) -> list[Path]:
    """The other runs whose finished stages this one may read, as they are at this moment."""
    this_run = Path(config.run_dir).resolve()
    folders = [folder for pattern in listed(config.inherit) for folder in matching_folders(pattern)]
    return [folder for folder in folders if folder.resolve() != this_run]


def results_of(run: Path) -> list[Artefact]:
    """The finished stages of a run: those in its folder, and those that it found in other runs."""
    folders = [path.parent for path in sorted(run.glob(f"*/{NAME}"))]
    results = [Artefact(path, manifest) for path in folders if (manifest := Manifest.read(path)) is not None]
    stages = {manifest.stage for _, manifest in results}
    for path in sorted(run.glob(f"logs/*/{INHERITED}")):
        record = read_json(path)
        manifest = Manifest.read(folder := Path(record["folder"]))
        if (
            path.parent.name not in stages
            and manifest is not None
            and manifest.fingerprint == record["fingerprint"]
        ):
            results.append(Artefact(folder, manifest))
    return results


def find_same(runs: Iterable[Path], name: str, fingerprint: str) -> Artefact | None:
    """The finished stage of that fingerprint in one of some runs."""
    for run in runs:
        manifest = Manifest.read(run / name)
        if manifest is not None and manifest.fingerprint == fingerprint:
            return Artefact(run / name, manifest)
    return None


def find_inputs(
    stage: str,
    needed: Collection[str],
    used: Collection[str],
    config: DictConfig,
    folders: Mapping[str, Path],
    planned: Mapping[str, Artefact] | None = None,
) -> dict[str, Artefact]:
    """Finds the finished folders of the stages that a stage reads.

    Args:
        stage: The stage that reads them.
        needed: Names of those it cannot do without.
        used: Names of those it reads where they are there.
        config: The configuration with the reading stage's settings under `stage`.
        folders: Folders that this command has found or made already, by stage.
        planned: What the stages before will have left, where nothing is made yet; then nothing is printed.

    Raises:
        UserError: A needed one is nowhere, or was made from other things than the rest, or the one of another
            run does not fit; the line names the command that makes it.
    """
    inputs: dict[str, Artefact] = {}
    for name in (*needed, *used):
        if planned and name in planned:
            inputs[name] = planned[name]
            continue
        folder = folders.get(name, stage_folder(config, name))
        if (manifest := Manifest.read(folder)) is not None:
            inputs[name] = Artefact(folder, manifest)
            continue
        if (folders or planned) and name not in needed:
            continue  # `stage=all` has made what belongs to its story
        inherited, misfits = _inherited(config, name, inputs)
        if inherited is not None:
            inputs[name] = inherited
        elif name in needed:
            unfit = "".join(f"; {misfit}" for misfit in misfits[:1])
            runs = [place.parents[1].name for place in folder.parents[1].glob(f"*/{name}/{NAME}")]
            near = difflib.get_close_matches(folder.parent.name, runs, n=1)
            guess = f"did you mean name={near[0]}? or " if near else ""
            raise UserError(
                f"stage={stage} needs the result of stage={name}, which is not in {folder}{unfit}: "
                f"{guess}run the same command with stage={name} first, or with stage=all"
            )
    if "prepare" in inputs:
        check_raw(config, inputs["prepare"])
    return _of_one_origin(stage, needed, inputs, quiet=planned is not None)


def _of_one_origin(
    stage: str, needed: Collection[str], inputs: Mapping[str, Artefact], *, quiet: bool
) -> dict[str, Artefact]:
    """The inputs without those, of the optional ones, that were made from other versions of the rest."""
    stale: set[str] = set()
    for name, (folder, manifest) in inputs.items():
        for before, fingerprint in manifest.inputs.items():
            if before in inputs and (before in stale or inputs[before].manifest.fingerprint != fingerprint):
                stale.add(name)
                line = f"{folder} was made from another {before} than {inputs[before].folder} is now"
                if name in needed:
                    raise UserError(f"stage={stage}: {line}: run stage={name} again, or stage=all")
                if is_rank_zero() and not quiet:
                    console.print(f"[yellow]left out[/]: {line}", highlight=False)
                break
    return {name: artefact for name, artefact in inputs.items() if name not in stale}


def check_raw(config: DictConfig, scenes: Artefact) -> None:
    """Tells two datasets of one name apart.

    Raises:
        UserError: The scenes are of another raw folder than the configuration's, and both folders are there.
    """
    recorded = Path(scenes.manifest.counts.get("raw", ""))
    raw = "" if OmegaConf.is_missing(config.dataset, "raw") else config.dataset.get("raw", "")
    # A town is the same in every folder.
    if not recorded.name or not raw or config.dataset.get("town") is not None:
        return
    if recorded.is_dir() and Path(raw).is_dir() and not recorded.samefile(raw):
        raise UserError(
            f"{scenes.folder} holds the scenes of {recorded}, not of dataset.raw={raw}: give each dataset "
            f"its own dataset.name=..., or delete {scenes.folder}"
        )


def _inherited(
    config: DictConfig, name: str, inputs: Mapping[str, Artefact]
) -> tuple[Artefact | None, list[str]]:
    """The first result in other runs that fits, and why those before it do not."""
    misfits: list[str] = []
    runs = inherited_runs(config) if name != "prepare" else []
    for run in runs:
        manifest = Manifest.read(run / name)
        if manifest is None:
            continue
        misfit = _misfit(config, manifest, inputs, runs)
        if misfit is None:
            return Artefact(run / name, manifest), misfits
        misfits.append(f"{run / name} was made with {misfit}")
    return None, misfits


def _misfit(
    config: DictConfig, manifest: Manifest, inputs: Mapping[str, Artefact], runs: Iterable[Path]
) -> str | None:
    """What tells a result of another run from what this configuration would make; None where nothing does.

    The configuration that the result was made with must be this one, and so down to the scenes. The files
    that it was made from are not looked at again.
    """
    if (other := _other_config(config, manifest)) is not None:
        return other
    for name, fingerprint in manifest.inputs.items():
        if name in inputs:
            if inputs[name].manifest.fingerprint != fingerprint:
                return f"another {name} than {inputs[name].folder}"
            continue
        before = (
            _same_scenes(config, fingerprint) if name == "prepare" else find_same(runs, name, fingerprint)
        )
        if before is None:
            return f"a result of stage={name} that is gone"
        misfit = _misfit(config, before.manifest, inputs, runs)
        if misfit is not None:
            return misfit
    return None


def _other_config(config: DictConfig, manifest: Manifest) -> str | None:
    for key, value in manifest.config.items():
        if key in _NOT_COMPARED:
            continue
        then, now = _flat(key, value), _flat(key, plain(config, key))
        for name in (*then, *now):
            if then.get(name) != now.get(name):
                return f"{name}={then.get(name)}, not {now.get(name)}"
    for key, value in _extras(config, manifest).items():
        if key not in manifest.config:
            return f"no {key}, not {value}"
    return None


def _extras(config: DictConfig, manifest: Manifest) -> dict[str, Any]:
    """What is given to every training beyond the defaults, and so recorded only where there is some."""
    if "trainer.precision" not in manifest.config:
        return {}  # not a training
    trainer = {f"trainer.{key}": value for key, value in (plain(config, "trainer") or {}).items()}
    extras = {key: value for key, value in trainer.items() if key not in (*FREE, *TRAINER_KEYS)}
    callbacks = plain(config, "callbacks")
    return extras | ({"callbacks": sorted(callbacks)} if callbacks else {})


def _same_scenes(config: DictConfig, fingerprint: str) -> Artefact | None:
    """The prepared scenes, which belong to no run, where they are of that fingerprint."""
    folder = stage_folder(config, "prepare")
    manifest = Manifest.read(folder)
    if manifest is None or manifest.fingerprint != fingerprint:
        return None
    return Artefact(folder, manifest)


def plain(config: DictConfig, key: str) -> Any:  # noqa: ANN401 - whatever the key holds
    """A part of the configuration in plain types, resolved."""
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def whole_paths(value: Any, key: str = "") -> Any:  # noqa: ANN401 - a part of a configuration
    """The same with absolute paths of files that are there: the file counts, not how its path is spelled.

    Args:
        value: A part of a configuration in plain types.
        key: Its address.
    """
    if isinstance(value, dict):
        return {name: whole_paths(one, str(name)) for name, one in value.items()}
    if isinstance(value, list):
        return [whole_paths(one, key) for one in value]
    is_path = isinstance(value, str) and key.rpartition(".")[2] in _PATHS
    # A plain word such as `imagenet` is no path, whatever lies in the working folder.
    if is_path and set(value) & {"/", "."} and os.path.lexists(value):
        return str(Path(value).resolve())
    return value


def _flat(key: str, value: object) -> dict[str, Any]:
    """The part of a configuration on one level, as a manifest would give it back."""
    return dict(flatten({key: whole_paths(json.loads(json.dumps(value, default=str)), key)}))
