"""What the configuration selects: the settings of one stage, and the bands of its scenes."""

from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from ome.data.scenes import SceneIndex, SceneReader


def settings_of(
    config: DictConfig, name: str, stages: Collection[str], overrides: Sequence[str] = ()
) -> DictConfig:
    """Makes the configuration of one stage: its settings lie under `stage`, whatever was selected.

    With `stage=all` they come from `stage.<name>`. With `stage=<name>` they lie under `stage` already; what a
    dataset or an experiment says under `stage.<name>` is laid over them, and the command line over that.

    Args:
        config: The composed configuration.
        name: The stage wanted.
        stages: Names of all stages.
        overrides: The command line's overrides, as typed.

    Returns:
        A copy of `config` with the settings of that stage alone under `stage`.
    """
    selected: dict[str, Any] = OmegaConf.to_container(config.stage)  # type: ignore[assignment]
    if selected["name"] == "all":
        own = selected[name]
    else:
        # An experiment may say how far `stage=all` goes, which is no setting of the stage.
        shared = {key: value for key, value in selected.items() if key not in {*stages, "until"}}
        own = OmegaConf.merge(shared, selected.get(name) or {})
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            group, _, key = override.key_or_group.partition(".")
            if group == "stage" and key and key.split(".")[0] not in stages:
                OmegaConf.update(own, key, override.value())
    made = config.copy()
    with open_dict(made):
        made.stage = own
    return made


def scene_reader(config: DictConfig, index: SceneIndex) -> SceneReader:
    """A reader of the bands that the dataset chooses."""
    return SceneReader(index, config.dataset.get("channels"), config.dataset.get("display"))
