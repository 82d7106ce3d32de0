"""Every stage by its name."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from omegaconf import DictConfig

from ome.errors import UserError
from ome.pipeline.stage import Stage
from ome.plugins import STAGE_PLUGINS, find, imported, is_plugin


class Stages(Mapping[str, Stage]):
    """Stages by name: the `STAGE` of the module of that name, imported on access.

    Some modules import networks and Lightning, which takes seconds.

    Args:
        names: Names of the stages, in order.
    """

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getitem__(self, name: str) -> Stage:
        """The stage of that name."""
        if name not in self._names:
            raise KeyError(name)
        stage: Stage = import_module(f"ome.stages.{name}").STAGE
        return stage

    def __contains__(self, name: object) -> bool:
        """Whether there is a stage of that name."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """The names in order."""
        return iter(self._names)

    def __len__(self) -> int:
        """The number of stages."""
        return len(self._names)


STAGES = Stages("prepare", "labels", "cam", "affinity", "pseudo", "ablation", "seg", "refine", "report")
"""The stages of `stage=all`, in order."""

SIDE_STAGES = Stages("predict", "export", "suggest", "compare", "reproduce")
"""Stages that run only when selected by name."""


def find_stage(name: str, config: DictConfig) -> Stage:
    """The stage of a name: the package's, an entry point's, or the `_target_` of its settings.

    Raises:
        UserError: There is none, or it is not a stage.
    """
    if name in STAGES or name in SIDE_STAGES:
        return STAGES[name] if name in STAGES else SIDE_STAGES[name]
    settings = config.stage.get(name)
    target = settings.get("_target_") if isinstance(settings, DictConfig) else None
    known = dict.fromkeys([*STAGES, *SIDE_STAGES, "all"])
    key = f"stage.{name}._target_"
    if settings is not None and not target and not is_plugin(name, STAGE_PLUGINS):
        raise UserError(f"{key} is not set: give the dotted path of the stage, e.g. {name}.STAGE")
    stage = imported(target, key) if target else find(name, known, STAGE_PLUGINS, "stage")
    if not isinstance(stage, Stage) or stage.name != name:
        raise UserError(f"{key}={target} is not the stage {name}: name a Stage({name!r}, ...)")
    return stage
