"""A stage is a function from artefacts to artefacts: what it is made of, and what it is given.

`ome.pipeline.engine` runs one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from omegaconf import DictConfig, OmegaConf

from ome.pipeline.artifacts import Artefact, plain, stage_folder
from ome.pipeline.manifest import Manifest
from ome.pipeline.place import Place

OnFinish: TypeAlias = Callable[[DictConfig, Artefact, Mapping[str, Artefact]], None]
"""What is told of a stage that has run: its configuration, its artefact, and those of its inputs by name."""

Conclude: TypeAlias = Callable[[DictConfig, Mapping[str, Artefact], Mapping[str, str]], None]
"""What is told of several parts: the configuration, the parts that hold, and why the others failed."""


_LATER: Final = ("stage.asset", "stage.others", "prediction.tta")
"""Settings that are younger than results that still hold: where they say nothing, they do not count."""


@dataclass(frozen=True)
class Work:
    """What a stage is given.

    Attributes:
        config: The configuration that it declares, see `declared_config`; `config.stage` has its settings.
        folder: Where the stage writes; it may hold the remains of an interrupted run of the same work.
        inputs: The finished folder of each stage it needs, and of those `optional_inputs` that exist.
        logs: Where loggers write; kept apart because logs differ between identical runs.
        logged: The whole configuration, which loggers take down; a result must not depend on it.
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
    """One step of the story.

    Attributes:
        name: As in `stage=NAME`.
        run: Does the work and returns the counts for the manifest.
        requires: Earlier stages whose folders it reads, or a function that tells them from the configuration.
        optional_inputs: Earlier stages whose folders it reads where they are there.
        config_keys: Dotted configuration keys, beyond the stage's own settings, that change its result.
        free_keys: Keys that it reads beside them: a check, or a file whose identity `external_files` gives.
        external_files: Identity of files outside the run that it reads (names, sizes, times), if any.
        optional_config: More of the configuration that changes its result, where it is given, by key.
        version: Raised when a change of the code makes earlier results stale.
        enabled: Tells from the configuration whether `stage=all` runs it on the way to a later stage; None
            where it always does.
        part: Names the part of its folder that the configuration asks for, e.g. a scene: parts are made, kept
            and replaced each on its own. None for a stage that makes its folder as a whole.
        parts: The configuration of each part, by what messages call it, where the configuration asks for
            several; None where it asks for one. See `ome.pipeline.parts`.
        conclude: Called by rank 0 when the last of several parts is done.
        subject: Tells, from the configuration as the manifest records it, what the result is of (a dataset, a
            scene), where commands may mean one folder for several.
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
    enabled: Callable[[DictConfig], bool] | None = None
    part: Callable[[DictConfig], str] | None = None
    parts: Callable[[DictConfig], Mapping[str, DictConfig] | None] | None = None
    conclude: Conclude | None = None
    subject: Callable[[Mapping[str, Any]], str] | None = None

    def needed(self, config: DictConfig) -> tuple[str, ...]:
        """Names of the stages it needs, given the configuration with its settings under `stage`."""
        return self.requires(config) if callable(self.requires) else self.requires

    def several(self, config: DictConfig) -> Mapping[str, DictConfig] | None:
        """The configuration of each part where several are asked for; None where one is."""
        return None if self.parts is None else self.parts(config)

    def folder(self, config: DictConfig) -> Path:
        """Where its result lies, or the part of it that the configuration asks for."""
        whole = stage_folder(config, self.name)
        return whole if self.part is None else whole / self.part(config)

    def place(self, config: DictConfig, used: Mapping[str, Any] | None = None) -> Place:
        """The place of that folder; `used` is the configuration as the manifest will record it, if known."""
        artefact = self._artefact(used_config(self, config) if used is None else used)
        return Place(self.folder(config), artefact, self._artefact_in)

    def _artefact(self, used: Mapping[str, Any]) -> str:
        return self.name if self.subject is None else f"{self.name} of {self.subject(used)}"

    def _artefact_in(self, manifest: Manifest) -> str:
        return self._artefact(manifest.config) if manifest.stage == self.name else manifest.stage


def used_config(stage: Stage, config: DictConfig) -> dict[str, Any]:
    """The part of a configuration that the result of a stage depends on, as its manifest records it."""
    used: dict[str, Any] = {"stage": OmegaConf.to_container(config.stage, resolve=True)}
    used |= {key: plain(config, key) for key in stage.config_keys}
    for part, name in (key.split(".") for key in _LATER):
        if not used.get(part, {}).get(name):
            used.get(part, {}).pop(name, None)
    if stage.optional_config is not None:
        used |= stage.optional_config(config)
    if stage.external_files is not None:
        used["sources"] = stage.external_files(config)
    return used
