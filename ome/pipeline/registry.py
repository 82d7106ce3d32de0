"""Every stage by its name."""

from importlib import import_module
from typing import Final

from omegaconf import DictConfig

from ome.errors import UserError
from ome.pipeline.stage import Stage
from ome.plugins import STAGE_PLUGINS, find, import_object, is_plugin

STAGES: Final = ("prepare", "labels", "cam", "affinity", "pseudo", "ablation", "seg", "refine", "report")
"""Names of the stages of `stage=all`, in order."""

SIDE_STAGES: Final = ("predict", "export", "suggest", "compare", "reproduce")
"""Names of the stages that run only when selected by name."""


def find_stage(name: str, config: DictConfig) -> Stage:
    """The stage of a name: the package's, an entry point's, or the `_target_` of its settings.

    Its module is imported now: some modules import networks and Lightning, which takes seconds.

    Raises:
        UserError: There is none, or it is not a stage.
    """
    if name in {*STAGES, *SIDE_STAGES}:
        return import_module(f"ome.stages.{name}").STAGE  # type: ignore[no-any-return]
    settings = config.stage.get(name)
    target = settings.get("_target_") if isinstance(settings, DictConfig) else None
    known = dict.fromkeys([*STAGES, *SIDE_STAGES, "all"])
    key = f"stage.{name}._target_"
    if settings is not None and not target and not is_plugin(name, STAGE_PLUGINS):
        raise UserError(f"{key} is not set: give the dotted path of the stage, e.g. {name}.STAGE")
    stage = import_object(target, key) if target else find(name, known, STAGE_PLUGINS, "stage")
    if not isinstance(stage, Stage) or stage.name != name:
        raise UserError(f"{key}={target} is not the stage {name}: name a Stage({name!r}, ...)")
    return stage
