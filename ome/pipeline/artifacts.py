"""Finds the finished results of earlier stages, in this run or in the runs that it inherits from."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ome.damage import DamagedError, named_if_damaged
from ome.files import read_json, write_json
from ome.pipeline.manifest import NAME, Manifest

TRAINER_KEYS = ("trainer.accelerator", "trainer.precision")
"""Hardware settings that every training records."""

_PATHS = {"weights", "encoder_weights", "checkpoint", "tags", "masks", "cams", "scene", "others"}
"""Last parts of the keys of settings that may be paths."""

NO_PART: Final = ("stage.threads", "prediction.batch")
"""Settings on which no result depends: how many tiles, or windows, are computed together."""

INHERITED = "inherited.json"
"""File in a run's logs of a stage that names the result of another run that stands for its own."""


class Artefact(NamedTuple):
    """A finished stage."""

    folder: Path
    manifest: Manifest


def stage_folder(config: DictConfig, name: str) -> Path:
    """The folder of a stage: runs share the prepared scenes, other stages write into the run's folder."""
    return Path(config.scenes) if name == "prepare" else Path(config.run_dir) / name


def another_place(stage: str) -> str:
    """The settings, as typed, that give the result of a stage another folder."""
    places = {"prepare": "scenes=...", "predict": "name, --name NAME or stage.predict.map_name=NAME"}
    return places.get(stage, "run_dir=...")


def logs_of(config: DictConfig, name: str) -> Path:
    """The run's logs of a stage."""
    return Path(config.run_dir) / "logs" / name


def matching_folders(pattern: str) -> list[Path]:
    """The folder of that name, or the folders that match it as a pattern, sorted."""
    if Path(pattern).is_dir():  # a sweep's folders have brackets in their names
        return [Path(pattern)]
    # An absolute pattern is looked up from the root; Path.glob takes relative ones only.
    start = Path(Path(pattern).anchor)
    return sorted(start.glob(str(Path(pattern).relative_to(start))))


def as_list(patterns: str | Iterable[str] | None) -> list[str]:
    """A list of patterns from one pattern, several or none."""
    if not patterns:
        return []
    return [patterns] if isinstance(patterns, str) else list(patterns)


def inherited_runs(config: DictConfig) -> list[Path]:
    """The other runs whose finished stages this run may read; the patterns are expanded anew at each call.

    Those that it has read before count without the setting too: a later command may lack it, as that of a
    sweep's job does.
    """
    run = Path(config.run_dir)
    folders = [folder for pattern in as_list(config.inherit) for folder in matching_folders(pattern)]
    unique = {run.resolve(): run}
    for folder in (*folders, *(result.folder.parent for result in inherited_results(run))):
        unique.setdefault(folder.resolve(), folder)
    return list(unique.values())[1:]


def note_inherited(logs: Path, folder: Path, fingerprint: str) -> None:
    """Records that a result of another run stands for a run's own.

    Args:
        logs: The run's logs of the stage.
        folder: The result.
        fingerprint: Its fingerprint.
    """
    # Runs move together, and are read from any working folder.
    place = os.path.relpath(folder.resolve(), logs.resolve())
    write_json(logs / INHERITED, {"folder": place, "fingerprint": fingerprint})


def inherited_results(run: Path) -> list[Artefact]:
    """The results of other runs that stand for a run's own; without those whose record is damaged."""
    results: list[Artefact] = []
    for path in _records(run):
        with suppress(DamagedError):
            results += _recorded(path)
    return results


def _records(run: Path) -> list[Path]:
    """The records of inherited results, but for stages that the run has finished itself since."""
    paths = sorted(run.glob(f"logs/*/{INHERITED}"))
    return [path for path in paths if not (run / path.parent.name / NAME).exists()]


def _recorded(path: Path) -> list[Artefact]:
    """The result that a record names; none if it is not there any more.

    Raises:
        DamagedError: The record is damaged.
    """
    with named_if_damaged(path):
        record = read_json(path)
        name, fingerprint = record["folder"], record["fingerprint"]
        folders = (path.parent / name).resolve(), Path(name)  # earlier versions began at the working folder
    result = find_same(folders, fingerprint)
    return [] if result is None else [result]


def results_of(run: Path) -> list[Artefact]:
    """The finished stages of a run: those in its folder, and those that it inherited from other runs.

    Raises:
        DamagedError: A manifest, or the record of an inherited result, is damaged.
    """
    folders = [path.parent for path in sorted(run.glob(f"*/{NAME}"))]
    results = [Artefact(path, manifest) for path in folders if (manifest := Manifest.read(path)) is not None]
    return [*results, *(result for path in _records(run) for result in _recorded(path))]


def find_same(folders: Iterable[Path], fingerprint: str) -> Artefact | None:
    """The first finished stage of that fingerprint among the folders of stages."""
    for folder in folders:
        manifest = Manifest.read(folder)
        if manifest is not None and manifest.fingerprint == fingerprint:
            return Artefact(folder, manifest)
    return None


def plain(config: DictConfig, key: str) -> Any:  # noqa: ANN401 - whatever the key holds
    """A part of the configuration in plain types, resolved; settings of `NO_PART` in a group are None."""
    value = OmegaConf.select(config, key)
    if not OmegaConf.is_config(value):
        return value
    whole: Any = OmegaConf.to_container(value, resolve=True)
    if isinstance(whole, dict):
        whole |= {name: None for name in whole if f"{key}.{name}" in NO_PART}
    return whole


def whole_paths(value: Any, key: str = "", recorded: Any = None, *, same: bool = False) -> Any:  # noqa: ANN401
    """The same with absolute paths of files that are there: the file counts, not how its path is spelled.

    Args:
        value: A part of a configuration in plain types.
        key: Its address.
        recorded: What a result was made with. Its spelling is taken where it leads to the same file, or to
            none, by the same name: a project may move with its runs, and stages compare the files as well.
        same: Whether the files are known to have the content of the recorded ones, wherever those are.
    """
    if isinstance(value, dict):
        before = recorded if isinstance(recorded, dict) else {}
        return {name: whole_paths(one, str(name), before.get(name), same=same) for name, one in value.items()}
    if isinstance(value, list):
        others = (
            recorded if isinstance(recorded, list) and len(recorded) == len(value) else [None] * len(value)
        )
        return [whole_paths(one, key, other, same=same) for one, other in zip(value, others, strict=True)]
    is_path = isinstance(value, str) and key.rpartition(".")[2] in _PATHS
    # A plain word such as `imagenet` is not a path, whatever lies in the working folder; nor is /vsizip/...
    if not (is_path and set(value) & {"/", "."} and (same or os.path.lexists(value))):
        return value
    path = Path(value).resolve()
    if isinstance(recorded, str):
        is_moved = (same or not os.path.lexists(recorded)) and Path(recorded).name == path.name
        if is_moved or Path(recorded).resolve() == path:
            return recorded
    return str(path)
