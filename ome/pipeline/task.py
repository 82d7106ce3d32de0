"""What a stage's result depends on, and whether that is what it was."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ome.errors import UserError
from ome.pipeline.artifacts import Artefact, find_same, inherited_runs, logs_of, whole_paths
from ome.pipeline.changes import changes_since, same_content
from ome.pipeline.checksums import NAME as LISTING
from ome.pipeline.checksums import damaged
from ome.pipeline.input_changes import Snapshot
from ome.pipeline.inputs import check_raw
from ome.pipeline.manifest import Manifest, compute_fingerprint, recorded
from ome.pipeline.marks import read_if_whole
from ome.pipeline.place import Place
from ome.pipeline.stage import Stage, used_config
from ome.pipeline.started import started_in


class Task(NamedTuple):
    """What a stage's result depends on, with the field names of its manifest, and where it is written.

    `changes` names what differs from the result in that place; it is empty if there is none, or the same one.
    """

    used: dict[str, Any]
    inputs: dict[str, str]
    outside: list[Path]
    snapshot: Snapshot
    fingerprint: str
    place: Place
    changes: list[str]


def task_of(stage: Stage, config: DictConfig, artefacts: Mapping[str, Artefact]) -> Task:
    """The task of a stage.

    Args:
        stage: The stage.
        config: The configuration with this stage's settings under `stage`.
        artefacts: What it reads from other stages, by name.

    Raises:
        UserError: An external file does not exist, or the folder cannot be that of an artefact.
    """
    inputs = {name: manifest.fingerprint for name, (_, manifest) in artefacts.items()}
    with recorded() as files:
        used = used_config(stage, config)
    outside, snapshot = [path for path, _ in files], Snapshot(artefacts, files, used.get("sources", []))
    place = stage.place(config, used, outside)
    present = read_if_whole(place.folder)
    if present is not None and present.stage == stage.name == "prepare":
        check_raw(config, Artefact(place.folder, present), files)
    if present is not None and (settings := _as_recorded(stage, used, inputs, outside, present)) is not None:
        return Task(settings, inputs, outside, snapshot, present.fingerprint, place, [])
    changes: list[str] = []
    if present is not None:
        settings = {key: whole_paths(value, key, present.config.get(key)) for key, value in used.items()}
        changes = changes_since(present, settings, inputs)
    started = started_in(logs_of(config, stage.name), place)
    if started is not None and (settings := _as_recorded(stage, used, inputs, outside, started)) is not None:
        return Task(settings, inputs, outside, snapshot, started.fingerprint, place, changes)
    used = {key: whole_paths(value, key) for key, value in used.items()}
    fingerprint = compute_fingerprint(stage.name, stage.version, used, inputs)
    return Task(used, inputs, outside, snapshot, fingerprint, place, changes)


def _as_recorded(
    stage: Stage, used: dict[str, Any], inputs: dict[str, str], outside: Sequence[Path], present: Manifest
) -> dict[str, Any] | None:
    """The settings as a result records them if it is of the same ones, and of files with the same content."""
    before = present.config
    for copied in (False, True):
        settings = {key: whole_paths(value, key, before.get(key), same=copied) for key, value in used.items()}
        if copied:
            settings["sources"] = before.get("sources")
        if compute_fingerprint(stage.name, stage.version, settings, inputs) != present.fingerprint:
            continue
        if not copied or same_content(used.get("sources"), outside, present):
            return settings
    return None


def check_inputs(artefacts: Mapping[str, Artefact], *, verify: bool) -> None:
    """Refuses artefacts that have changed since their stage wrote them."""
    for name, (folder, manifest) in artefacts.items():
        wrong = damaged(folder, manifest.files, verify=verify)
        if wrong != []:
            file = folder / (wrong[0] if wrong else LISTING)
            raise UserError(
                f"{file} has changed since stage={name} wrote it: type stage={name} verify=true to redo it"
            )


def inherited_folder(stage: Stage, config: DictConfig, fingerprint: str, *, verify: bool) -> Path | None:
    """The folder of an undamaged result of that fingerprint in a run that this one inherits from."""
    if stage.name == "prepare" or stage.part is not None:
        return None
    same = find_same((run / stage.name for run in inherited_runs(config)), fingerprint)
    whole = same is not None and damaged(same.folder, same.manifest.files, verify=verify) == []
    return same.folder if same and whole else None
