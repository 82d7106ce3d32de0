"""Finds the finished results of earlier stages, in this run or in the runs that it inherits from."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ome.files import read_json
from ome.pipeline.manifest import NAME, Manifest

TRAINER_KEYS = ("trainer.accelerator", "trainer.precision")
"""Hardware settings that every training records."""

_PATHS = {"weights", "encoder_weights", "checkpoint", "tags", "masks", "cams", "scene", "others"}
"""Last parts of the keys of settings that may be paths."""

INHERITED = "inherited.json"
"""File in a run's logs of a stage that names the other run from which its result was taken."""


class Artefact(NamedTuple):
    """A finished stage."""

    folder: Path
    manifest: Manifest


def stage_folder(config: DictConfig, name: str) -> Path:
    """The folder of a stage: runs share the prepared scenes, other stages write into the run's folder."""
    return Path(config.scenes) if name == "prepare" else Path(config.run_dir) / name


def matching_folders(pattern: str) -> list[Path]:
    """The folder of that name, or the folders that match it as a pattern, sorted."""
    if Path(pattern).is_dir():  # a sweep's folders have brackets in their names
        return [Path(pattern)]
    # An absolute pattern is looked up from the root; Path.glob takes relative ones only.
    start = Path(Path(pattern).anchor)
    return sorted(start.glob(str(Path(pattern).relative_to(start))))


def listed(patterns: str | Iterable[str] | None) -> list[str]:
    """A list of patterns from one pattern, several or none."""
    if not patterns:
        return []
    return [patterns] if isinstance(patterns, str) else list(patterns)


def inherited_runs(config: DictConfig) -> list[Path]:
    """The other runs whose finished stages this run may read; the patterns are expanded anew at each call."""
    this_run = Path(config.run_dir).resolve()
    folders = [folder for pattern in listed(config.inherit) for folder in matching_folders(pattern)]
    return [folder for folder in folders if folder.resolve() != this_run]


def results_of(run: Path) -> list[Artefact]:
    """The finished stages of a run: those in its folder, and those that it inherited from other runs."""
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
    """The first finished stage of that name and fingerprint among the runs."""
    for run in runs:
        manifest = Manifest.read(run / name)
        if manifest is not None and manifest.fingerprint == fingerprint:
            return Artefact(run / name, manifest)
    return None


def plain(config: DictConfig, key: str) -> Any:  # noqa: ANN401 - whatever the key holds
    """A part of the configuration in plain types, resolved."""
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def whole_paths(value: Any, key: str = "") -> Any:  # noqa: ANN401 - a part of a configuration
    """Makes the paths of existing files absolute, so that a fingerprint does not depend on their spelling.

    Args:
        value: A part of a configuration in plain types.
        key: Its dotted key.
    """
    if isinstance(value, dict):
        return {name: whole_paths(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [whole_paths(item, key) for item in value]
    is_path = isinstance(value, str) and key.rpartition(".")[2] in _PATHS
    # A plain word such as `imagenet` is not a path, even if the working folder has a file of that name.
    if is_path and set(value) & {"/", "."} and os.path.lexists(value):
        return str(Path(value).resolve())
    return value
