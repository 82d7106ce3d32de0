"""Finds results of other runs that match a configuration."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ome.pipeline.artifacts import (
    TRAINER_KEYS,
    Artefact,
    find_same,
    inherited_runs,
    plain,
    stage_folder,
    whole_paths,
)
from ome.pipeline.config_guard import FREE
from ome.pipeline.manifest import Manifest
from ome.plugins import CODE, code_of
from ome.scoring.spread import flatten

_NOT_COMPARED = {"stage", "sources", "trainer.compile", *TRAINER_KEYS}
"""Keys of an earlier stage: its settings, unknown in a command for a later stage, and its hardware."""

OFF = str(None)
"""Null as a text, see `flatten`."""


def inherited_result(
    config: DictConfig, name: str, inputs: Mapping[str, Artefact]
) -> tuple[Artefact | None, list[str]]:
    """The first matching result in other runs, and why the results before it do not match."""
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
    """Why a result of another run differs from what this configuration would compute; None if it does not.

    Its configuration must equal this one, and so must those of its inputs, down to the scenes. External files
    are not checked again.
    """
    if (other := other_config(config, manifest)) is not None:
        return other
    for name, fingerprint in manifest.inputs.items():
        if name in inputs:
            if inputs[name].manifest.fingerprint != fingerprint:
                return f"another {name} than {inputs[name].folder}"
            continue
        # Runs share the prepared scenes.
        folders = [stage_folder(config, name)] if name == "prepare" else [run / name for run in runs]
        before = find_same(folders, fingerprint)
        if before is None:
            return f"a result of stage={name} that does not exist any more"
        misfit = _misfit(config, before.manifest, inputs, runs)
        if misfit is not None:
            return misfit
    return None


def other_config(config: DictConfig, manifest: Manifest, besides: Iterable[str] = ()) -> str | None:
    """The first setting, or code, of which a result was made with another one; see `_NOT_COMPARED`.

    Args:
        config: The configuration.
        manifest: Of the result.
        besides: Keys that are not compared either; a key stands for all below it.
    """
    besides = tuple(f"{key}." for key in besides)
    for key, value in manifest.config.items():
        if key in _NOT_COMPARED or f"{key}.".startswith(besides):
            continue
        if key == CODE:
            if changed := [name for name, code in value.items() if code_of(name) != code]:
                return f"other code of {changed[0]}"
            continue
        before = whole_paths(value, key)
        then, now = _flat(key, before), _flat(key, plain(config, key), before)
        for name in (*then, *now):
            # Some are not recorded where they are off (`ome.pipeline.stage.used_config`).
            theirs, ours = then.get(name, OFF), now.get(name, OFF)
            if theirs != ours:
                return f"{name}={theirs}, not {ours}"
    for key, value in _extras(config, manifest).items():
        if key not in manifest.config:
            return f"no {key}, not {value}"
    return None


def _extras(config: DictConfig, manifest: Manifest) -> dict[str, Any]:
    """Trainer arguments and callbacks beyond the defaults; a manifest records them only if there are any."""
    if "trainer.precision" not in manifest.config:
        return {}  # not a training
    trainer = {f"trainer.{key}": value for key, value in (plain(config, "trainer") or {}).items()}
    extras = {key: value for key, value in trainer.items() if key not in (*FREE, *TRAINER_KEYS)}
    callbacks = plain(config, "callbacks")
    return extras | ({"callbacks": sorted(callbacks)} if callbacks else {})


def _flat(key: str, value: object, recorded: object = None) -> dict[str, Any]:
    """The part of a configuration on one level, as a manifest would give it back; see `whole_paths`."""
    return dict(flatten({key: whole_paths(json.loads(json.dumps(value, default=str)), key, recorded)}))
