"""What a run was made with: its commands, versions, and what each stage recorded."""

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ome.stages.manifest import NAME, Manifest

MOST_COMMANDS = 50
"""Command lines shown, the last ones."""


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
    places = ("logs/*/config/overrides.yaml", "config/overrides.yaml")
    typed = [
        OmegaConf.to_container(OmegaConf.load(path))
        for run in runs
        for path in sorted(found for place in places for found in run.glob(place))
    ]
    lines = [shlex.join(["python", "-m", "ome.run", *map(str, overrides or [])]) for overrides in typed]
    last_first = list(dict.fromkeys(reversed(lines)))
    return last_first[:MOST_COMMANDS][::-1]


def finished(folders: Mapping[str, Path]) -> datetime:
    """When the last of some finished stages was, by the time of its manifest."""
    latest = max((folder / NAME).stat().st_mtime for folder in folders.values())
    return datetime.fromtimestamp(latest, UTC)


def version_rows(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Versions by name; where stages were run with different ones, each with its stages."""
    found: dict[str, dict[str, list[str]]] = {}
    for stage, manifest in manifests.items():
        for name, value in manifest.versions.items():
            found.setdefault(name, {}).setdefault(value, []).append(stage)
    return {
        name: next(iter(by_value))
        if len(by_value) == 1
        else "; ".join(f"{value} ({', '.join(stages)})" for value, stages in by_value.items())
        for name, by_value in found.items()
    }


def settings_rows(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """The settings of each stage as YAML."""
    return {stage: OmegaConf.to_yaml(OmegaConf.create(made.config)) for stage, made in manifests.items()}
