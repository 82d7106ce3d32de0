"""Provenance of a run: external files, commands, versions, and the records of each stage."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ome.damage import read_undamaged
from ome.errors import shell_word
from ome.pipeline.changes import identities
from ome.pipeline.layout import command_files
from ome.pipeline.manifest import NAME, Manifest

LISTED = 20
"""Largest number of listed raw files; for longer lists the digest of the whole list is added."""

MOST_COMMANDS = 50
"""Number of shown command lines, the last ones."""

HASHED = ("backbone.weights", "segmenter.weights", "dataset.tags")
"""Settings that name files of which the SHA-256 is shown."""


def describe_inputs(config: DictConfig, manifests: Mapping[str, Manifest]) -> list[str]:
    """Describes the external files that the stages read.

    Raw files are described by name, size and modification time when the scenes were prepared; weights and the
    table of tags by the SHA-256 of their current content.

    Args:
        config: The configuration of the run.
        manifests: Manifests of the finished stages, by name.

    Returns:
        One line per file.
    """
    sources = manifests["prepare"].config.get("sources") if "prepare" in manifests else []
    raw = [one for one in identities(sources) if isinstance(one[1], int)]  # not of maps
    lines = [
        f"{name}  {size} bytes  changed {datetime.fromtimestamp(time / 1e9, UTC):%Y-%m-%d %H:%M:%S UTC}"
        for name, size, time in raw[:LISTED]
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


def recorded(manifests: Mapping[str, Manifest], config: DictConfig, key: str) -> Any:  # noqa: ANN401 - any setting
    """The value of a setting that the earliest stage recorded; the configured value if no stage recorded it.

    The current configuration may differ from that of a finished stage.
    """
    group, _, rest = key.partition(".")
    for manifest in manifests.values():
        for name, inner in ((key, ""), (group, rest)):
            if name in manifest.config and name != "stage":
                value = manifest.config[name]
                return OmegaConf.select(OmegaConf.create(value), inner) if inner else value
    return OmegaConf.select(config, key)


def commands(*runs: Path) -> list[str]:
    """The last `MOST_COMMANDS` different command lines, each in the place of its last use.

    Args:
        runs: Folders of runs, in which Hydra saved the overrides of each command.
    """
    typed = [words for run in runs for words in read_undamaged(command_files(run), list)]
    lines = [" ".join(map(shell_word, ["python", "-m", "ome.run", *words])) for words in typed]
    last_first = list(dict.fromkeys(reversed(lines)))
    # A refused command may have named a file that is not in UTF-8, which the page cannot hold.
    return [line.encode(errors="replace").decode() for line in last_first[:MOST_COMMANDS][::-1]]


def finish_time(folders: Mapping[str, Path]) -> datetime:
    """When the last of the stages in these folders was finished, by the times of the manifests."""
    latest = max((folder / NAME).stat().st_mtime for folder in folders.values())
    return datetime.fromtimestamp(latest, UTC)


def version_rows(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Versions by package; with the names of the stages if these were run with different versions."""
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
