"""The weights that stages load into encoders: the settings that name them, and their download."""

from collections.abc import Collection, Iterator

from omegaconf import DictConfig

from ome.errors import UserError
from ome.plugins import BACKBONE_PLUGINS, is_plugin, name_of


def segmenter_weights_key(config: DictConfig) -> str:
    """The setting that names the weights of the segmenter's encoder: the backbone's, unless they differ."""
    weights = config.segmenter.get("weights")
    same = (key for key in ("weights", "encoder_weights") if config.backbone.get(key) == weights)
    return next((f"backbone.{key}" for key in same), "segmenter.weights")


def weights_to_load(config: DictConfig, stages: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yields the weights that stages load.

    Args:
        config: The settings.
        stages: Names of stages.

    Yields:
        The setting that names the weights, the encoder, and the weights: a file, a name or "package".
    """
    backbone, segmenter = config.backbone, config.segmenter
    if "cam" in stages and not config.stage.cam.checkpoint and (weights := backbone.get("weights")):
        yield "backbone.weights", name_of(backbone), weights
    if not {"seg", "refine"}.isdisjoint(stages) and (weights := segmenter.get("weights")):
        yield segmenter_weights_key(config), segmenter.encoder, weights


def fetch_published(config: DictConfig, stages: Collection[str]) -> None:
    """Downloads published weights that stages load, unless they are in the local cache.

    Without a connection a command then ends before its first stage, not before the one that needs them.

    Raises:
        UserError: They cannot be downloaded.
    """
    for key, encoder, weights in weights_to_load(config, stages):
        from ome.networks.hub import download_encoder  # noqa: PLC0415 - slow to import
        from ome.networks.weights import is_published  # noqa: PLC0415

        if is_published(weights) and not is_plugin(encoder, BACKBONE_PLUGINS):
            try:
                download_encoder(encoder, weights)
            except UserError as error:
                raise UserError(f"{key}={weights}: {error}") from error
