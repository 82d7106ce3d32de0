"""Provenance of a run: external files, commands, versions, and the records of each stage."""

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ome.pipeline.layout import command_files
from ome.pipeline.manifest import NAME, Manifest

LISTED = 20
"""Files that are named one by one; of more, the digest of the whole list is given."""

MOST_COMMANDS = 50
"""Command lines shown, the last ones."""

HASHED = ("backbone.weights", "segmenter.weights", "dataset.tags")


def describe_inputs(config: DictConfig, manifests: Mapping[str, Manifest]) -> list[str]:
    """Names the files from outside that the stages read.

    Raw files are told by name, size and time of change, as they were when the scenes were prepared; weights
    and the table of tags by their content, as it is now.

    Args:
        config: The configuration of the run.
        manifests: Of the finished stages, by name.

    Returns:
        One line a file.
    """
    raw = list(_files(manifests["prepare"].config.get("sources", []))) if "prepare" in manifests else []
    lines = [
        f"{name}  {size} bytes  changed {_time(nanoseconds)}" for name, size, nanoseconds in raw[:LISTED]
    ]
    if len(raw) > LISTED:
        digest = hashlib.sha256(repr(raw).encode()).hexdigest()
        lines.append(f"and {len(raw) - LISTED} more; sha256 of the whole list {digest}")
    files_of = {key: OmegaConf.select(config, key) for key in HASHED}
    if "cam" in manifests:
        files_of["stage.cam.checkpoint"] = manifests["cam"].config["stage"].get("checkpoint")
    for key, value in files_of.items():
        if value is not None and Path(value).is_file():
            with Path(value).open("rb") as stream:
                lines.append(f"{key}={value}  sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()}")
    return lines


def _files(sources: list[Any]) -> Iterator[tuple[str, int, int]]:
    """The entries of `identity` among the sources of stage=prepare."""
    for entry in sources:
        if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[1], int):
            yield entry[0], entry[1], entry[2]


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def recorded(manifests: Mapping[str, Manifest], config: DictConfig, key: str) -> Any:  # noqa: ANN401 - any setting
    """A setting as the stages recorded it, the earliest first; as configured where none did.

    What is configured now may not be what a finished stage was run with.
    """
    group, _, rest = key.partition(".")
    for manifest in manifests.values():
        for name, inner in ((key, ""), (group, rest)):
            if name in manifest.config and name != "stage":
                value = manifest.config[name]
                return OmegaConf.select(OmegaConf.create(value), inner) if inner else value
    return OmegaConf.select(config, key)


def commands(*runs: Path) -> list[str]:
    """The command lines that were run in the folders of some runs, each once: where it was last.

    Args:
        runs: Folders of runs, in which Hydra left the overrides of each command.
    """
    typed = [OmegaConf.to_container(OmegaConf.load(path)) for run in runs for path in command_files(run)]
    lines = [shlex.join(["python", "-m", "ome.run", *map(str, overrides or [])]) for overrides in typed]
    last_first = list(dict.fromkeys(reversed(lines)))
    return last_first[:MOST_COMMANDS][::-1]


def finished(folders: Mapping[str, Path]) -> datetime:
    """When the last of some finished stages was, by the time of its manifest."""
    latest = max((folder / NAME).stat().st_mtime for folder in folders.values())
    return datetime.fromtimestamp(latest, UTC)


def version_rows(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Versions by name; where stages were run with different ones, each with its stages."""
    lines_of: dict[str, dict[str, list[str]]] = {}
    for stage, manifest in manifests.items():
        for name, value in manifest.versions.items():
            lines_of.setdefault(name, {}).setdefault(value, []).append(stage)
    return {
        name: next(iter(by_value))
        if len(by_value) == 1
        else "; ".join(f"{value} ({', '.join(stages)})" for value, stages in by_value.items())
        for name, by_value in lines_of.items()
    }


def settings_rows(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """The settings of each stage as YAML."""
    return {stage: OmegaConf.to_yaml(OmegaConf.create(record.config)) for stage, record in manifests.items()}
