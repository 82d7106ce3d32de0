"""The definition of a stage, a function from artefacts to artefacts, and the work that it receives.

`ome.pipeline.engine` runs it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from omegaconf import DictConfig

from ome.pipeline.artifacts import Artefact, plain, stage_folder
from ome.pipeline.changes import same_content
from ome.pipeline.manifest import Manifest, recorded
from ome.pipeline.place import Place
from ome.plugins import CODE, codes_in

OnFinish: TypeAlias = Callable[[DictConfig, Artefact, Mapping[str, Artefact]], None]
"""Called with a finished stage's configuration, its artefact, and the artefacts of its inputs by name."""

Conclude: TypeAlias = Callable[[DictConfig, Mapping[str, Artefact], Mapping[str, str]], None]
"""Called with the configuration, the artefacts of the finished parts, and the errors of the failed ones."""


_IF_SET: Final = ("stage.asset", "stage.map_name", "stage.others", "prediction.tta")
"""Settings that are recorded, and enter the fingerprint, only where they are set."""


class Unread(NamedTuple):
    """What a training of a stage does not read, although its stage does.

    Attributes:
        settings: Addresses of settings, or of groups of them, in the manifest.
        inputs: Earlier stages.
    """

    settings: tuple[str, ...]
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """The arguments of a stage's `run`.

    Attributes:
        config: The declared part of the configuration, see `declared_config`; the settings of the stage are
            in `config.stage`.
        folder: Folder to write to; it may hold files of an interrupted run with the same fingerprint.
        inputs: The finished folder of each required stage, and of each of `optional_inputs` that exists.
        logs: Folder for loggers; separate, because logs differ between identical runs.
        logged: The whole configuration for loggers to record; a result must not depend on it.
    """

    config: DictConfig
    folder: Path
    inputs: Mapping[str, Path]
    logs: Path
    logged: DictConfig

    @property
    def settings(self) -> DictConfig:
        """The settings of this stage."""
        settings: DictConfig = self.config.stage
        return settings


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: As in `stage=NAME`.
        run: Does the work and returns the counts for the manifest.
        requires: Earlier stages whose folders it reads, or a function of the configuration that returns them.
        optional_inputs: Earlier stages whose folders it reads if they exist.
        config_keys: Dotted configuration keys, beyond the stage's own settings, that change its result.
        free_keys: Other keys that it reads: for a check, or a file whose identity `external_files` returns.
        external_files: Returns the identities (name, size, time) of files outside the run that it reads.
        optional_config: Returns further configuration that changes its result only where it is set, by key.
        version: Incremented when a change of the code makes earlier results stale.
        enabled: Returns whether `stage=all` runs it before a later stage; by default always.
        part: Returns the name of the part of its folder that the configuration selects, e.g. a scene; each
            part is an artefact. None for a stage whose folder is one artefact.
        parts: Returns the configuration of each part by its name in messages, or None if the configuration
            selects a single one. See `ome.pipeline.parts`.
        conclude: Called by rank 0 when all of several parts are done.
        trainings: What the trainings in its subfolders, by a pattern of their names (`.`: its own folder), do
            not read: a training that reads nothing of what has changed is not repeated.
        subject: Returns what the result is of (a dataset, a scene) from the recorded configuration, where
            commands may use one folder for several.
    """

    name: str
    run: Callable[[Work], dict[str, Any]]
    requires: tuple[str, ...] | Callable[[DictConfig], tuple[str, ...]] = ()
    optional_inputs: tuple[str, ...] = ()
    config_keys: tuple[str, ...] = ()
    free_keys: tuple[str, ...] = ()
    external_files: Callable[[DictConfig], list[Any]] | None = None
    optional_config: Callable[[DictConfig], dict[str, Any]] | None = None
    version: int = 1
    enabled: Callable[[DictConfig], bool] = lambda _config: True
    part: Callable[[DictConfig], str] | None = None
    parts: Callable[[DictConfig], Mapping[str, DictConfig] | None] | None = None
    conclude: Conclude | None = None
    trainings: Mapping[str, Unread] = field(default_factory=dict)
    subject: Callable[[Mapping[str, Any]], str] | None = None

    def needed(self, config: DictConfig) -> tuple[str, ...]:
        """Names of the required stages, given the configuration with its settings under `stage`."""
        return self.requires(config) if callable(self.requires) else self.requires

    def several(self, config: DictConfig) -> Mapping[str, DictConfig] | None:
        """The configuration of each part if several are selected, else None."""
        return None if self.parts is None else self.parts(config)

    def folder(self, config: DictConfig) -> Path:
        """The folder of its result, or of the part that the configuration selects."""
        whole = stage_folder(config, self.name)
        return whole if self.part is None else whole / self.part(config)

    def place(
        self, config: DictConfig, used: dict[str, Any] | None = None, outside: Sequence[Path] = ()
    ) -> Place:
        """The `Place` of that folder.

        Args:
            config: The configuration.
            used: The configuration that the manifest will record; None if it is not known yet.
            outside: The external files in there.
        """
        if used is None:
            with recorded() as files:
                used = used_config(self, config)
            outside = [path for path, _ in files]
        return Place(self.folder(config), self._artefact(used), partial(self._artefact_in, used, outside))

    def _artefact(self, used: Mapping[str, Any]) -> str:
        return self.name if self.subject is None else f"{self.name} of {self.subject(used)}"

    def _artefact_in(self, used: Mapping[str, Any], outside: Sequence[Path], manifest: Manifest) -> str:
        """The artefact of a manifest; that of `used` also if its subject has moved."""
        if manifest.stage != self.name:
            return manifest.stage
        ours, theirs = self._artefact(used), self._artefact(manifest.config)
        named_alike = Path(ours).name == Path(theirs).name
        is_moved = named_alike and ours != theirs and same_content(used.get("sources"), outside, manifest)
        return ours if is_moved else theirs


def used_config(stage: Stage, config: DictConfig) -> dict[str, Any]:
    """The part of a configuration that the result of a stage depends on, as its manifest records it."""
    used: dict[str, Any] = {"stage": plain(config, "stage")}
    used |= {key: plain(config, key) for key in stage.config_keys}
    for part, name in (key.split(".") for key in _IF_SET):
        if not used.get(part, {}).get(name):
            used.get(part, {}).pop(name, None)
    if stage.optional_config is not None:
        used |= stage.optional_config(config)
    if stage.external_files is not None:
        used["sources"] = stage.external_files(config)
    if codes := codes_in(used):
        used[CODE] = codes
    return used
