"""The story from raw archives to the report: whatever is missing or stale, in order."""

from collections.abc import Sequence

from omegaconf import DictConfig

from ome.errors import UserError
from ome.stages import ablation, affinity, cam, compare, labels, prepare, pseudo, refine, report, seg
from ome.stages.settings import settings_of
from ome.stages.stage import Stage, execute

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (prepare, labels, cam, affinity, pseudo, ablation, seg, refine, report)
}
"""Every stage, in the order of the story."""

SIDE_STAGES: dict[str, Stage] = {module.STAGE.name: module.STAGE for module in (compare,)}
"""Stages that run only when they are named."""

_EVERY = {**STAGES, **SIDE_STAGES}


def run_stages(config: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Runs the selected stages.

    Args:
        config: The composed configuration.
        overrides: The command line's overrides, as typed.

    Raises:
        UserError: See `execute`; or the stage does not exist.
    """
    names = selected_stages(config)
    for name in names:
        settings = settings_of(config, name, STAGES, overrides)
        execute(_EVERY[name], settings, force=config.force, verify=config.verify)
    if names[-1] == "report":
        report.show(config)


def selected_stages(config: DictConfig) -> list[str]:
    """Names the stages to run: the selected one, or with `stage=all` every wanted one up to `stage.until`.

    Raises:
        UserError: The stage does not exist.
    """
    selected = config.stage.name
    if selected == "all":
        last = config.stage.until
        if last not in STAGES:
            raise UserError(f"stage.until={last} is no stage: choose one of {', '.join(STAGES)}")
        before = list(STAGES.values())[: list(STAGES).index(last)]
        return [*(stage.name for stage in before if stage.wanted is None or stage.wanted(config)), last]
    if selected in _EVERY:
        return [selected]
    known = ", ".join([*_EVERY, "all"])
    raise UserError(f"stage={selected} is no stage: choose one of {known}")
