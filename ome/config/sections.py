"""Parts of the configuration: the settings of one stage, and the bands of its scenes."""

from omegaconf import DictConfig, OmegaConf, open_dict

from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader


def settings_of(config: DictConfig, name: str) -> DictConfig:
    """A copy of the composed configuration that has only the settings of one stage, under `stage`."""
    stage_config = config.copy()
    with open_dict(stage_config):
        stage_config.stage = OmegaConf.merge({"name": name}, config.stage.get(name) or {})
    return stage_config


def averaged_cams(refine: DictConfig) -> str | None:
    """The CAMs that rounds average with predictions, from the settings of stage refine; None: none."""
    return refine.cams if refine.confident is None else None


def scene_reader(config: DictConfig, index: SceneIndex) -> SceneReader:
    """A reader of the configured bands of prepared scenes."""
    return SceneReader(index, config.dataset.get("channels"), config.dataset.get("display"))
