"""The story from raw archives to the report: whatever is missing or stale, in order."""

from collections.abc import Sequence

from omegaconf import DictConfig

from ome.errors import UserError
from ome.stages import affinity, cam, compare, labels, prepare, pseudo, refine, report, seg
from ome.stages.settings import settings_of
from ome.stages.stage import Stage, execute

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (prepare, labels, cam, affinity, pseudo, seg, refine, report)
}
"""Every stage, in the order of the story."""

OPTIONAL = ("affinity",)
"""Stages that `stage=all` runs only where another one needs their result."""

SIDE_STAGES: dict[str, Stage] = {module.STAGE.name: module.STAGE for module in (compare,)}
"""Stages that run only when they are named."""


def run_stages(config: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Runs the selected stage, or with `stage=all` every stage up to `stage.until`.

    Args:
        config: The composed configuration.
        overrides: The command line's overrides, as typed.

    Raises:
        UserError: See `execute`; or the stage does not exist.
    """
    selected = config.stage.name
    names = list(STAGES)
    if selected == "all":
        last = config.stage.until
        if last not in STAGES:
            raise UserError(f"stage.until={last} is no stage: choose one of {', '.join(names)}")
        names = _story(config, names[: names.index(last) + 1])
    elif selected in {**STAGES, **SIDE_STAGES}:
        names = [selected]
    else:
        known = ", ".join([*STAGES, *SIDE_STAGES, "all"])
        raise UserError(f"stage={selected} is no stage: choose one of {known}")
    for name in names:
        execute(
            {**STAGES, **SIDE_STAGES}[name], settings_of(config, name, STAGES, overrides), force=config.force
        )
    if names[-1] == "report":
        report.show(config)


def _story(config: DictConfig, names: list[str]) -> list[str]:
    """The stages up to the last of `names`, without optional ones that none of the others needs."""
    needed = {need for name in names for need in STAGES[name].needed(settings_of(config, name, STAGES))}
    return [name for name in names if name not in OPTIONAL or name in needed or name == names[-1]]
