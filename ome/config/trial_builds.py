"""Builds the objects that stages will build, to find wrong settings before the first stage starts."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig

from ome.config.encoder_weights import segmenter_weights_key
from ome.config.raw_data import is_folder_of_images, raw_layout, split_fault
from ome.data.raw import RawLayout
from ome.data.tiles import MOST_STEPS
from ome.errors import OtherBandsError, UserError
from ome.plugins import BACKBONE_PLUGINS, SEGMENTER_PLUGINS, is_plugin, name_of

SEVERAL_BACKBONES: Final = (
    "AffinityNet starts from the classifier's backbone, but classifier.one_vs_all=true trains one per class: "
    "type stage.pseudo.cams=cam stage.ablation.random_walk=false to skip AffinityNet, or "
    "classifier.one_vs_all=false"
)


def _recipe(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    if not {"seg", "refine"} & {*stages}:
        return
    from ome.config.recipes import loss_of, optimization_of  # noqa: PLC0415 - slow to import

    recipe, weights = config.segmenter.recipe, config.segmenter.recipe.class_weights
    # The number of classes is 0 if it is only known from the table of tags.
    number = len(config.dataset.get("classes") or (() if isinstance(weights, str) else weights or ()))
    yield from _faults(lambda: optimization_of(recipe, recipe.steps or MOST_STEPS))
    yield from _faults(lambda: loss_of(config.segmenter, number, lambda: [1] * number))


def _segmenter(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    segmenter = config.segmenter
    if {"seg", "refine"} & {*stages}:
        if is_plugin(name_of(segmenter), SEGMENTER_PLUGINS) or "_target_" in segmenter:
            from ome.config.plugin_trials import check_plugin  # noqa: PLC0415 - slow to import

            weights, bands = _on_disk(segmenter.get("weights")), _bands(config)
            yield from _faults(lambda: check_plugin(config, "segmenter", weights, bands or 3), bands)
            return
        # Where both are the same, the segmenter's setting most often refers to the backbone's.
        same = segmenter.encoder == config.backbone.name and "_target_" not in config.backbone
        key = "backbone.name" if same else "segmenter.encoder"
        weights_key = segmenter_weights_key(config)
        if faults := _published_faults(key, segmenter.encoder, weights_key, segmenter.weights):
            yield from faults
            return
        kind = (name_of(segmenter), segmenter.encoder)
        yield from _segmenter_faults(*kind, _on_disk(segmenter.weights), _bands(config), segmenter.weights)


def _classifier(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    backbone, classifier, checkpoint = config.backbone, config.classifier, config.stage.cam.checkpoint
    if classifier.one_vs_all and "affinity" in stages:
        yield SEVERAL_BACKBONES
    if "cam" not in stages:
        return
    if classifier.one_vs_all and checkpoint:
        yield (
            "stage.cam.checkpoint is one network of all classes, but classifier.one_vs_all=true has one "
            "network per class: change one of the two"
        )
    if classifier.one_vs_all and classifier.pooling == "competing":
        yield "classifier.one_vs_all=true has no other classes to compete with: type classifier.pooling=mean"
    if classifier.pcm and not classifier.ecr_weight and not classifier.min_pool_weight:
        from ome.training.seam import UNTRAINED_PCM  # noqa: PLC0415 - slow to import

        yield UNTRAINED_PCM
    side = round(config.dataset.tile.size * classifier.zoom)
    if side < backbone.output_stride:
        yield (
            f"dataset.tile.size={config.dataset.tile.size} with classifier.zoom={classifier.zoom} is less "
            f"than a cell of the CAM, backbone.output_stride={backbone.output_stride}: use larger tiles"
        )
    weights, bands = None if checkpoint else backbone.get("weights"), _bands(config)
    if is_plugin(name_of(backbone), BACKBONE_PLUGINS) or "_target_" in backbone:
        from ome.config.plugin_trials import check_plugin  # noqa: PLC0415 - slow to import

        yield from _faults(lambda: check_plugin(config, "backbone", _on_disk(weights), bands or 3), bands)
        return
    if faults := _published_faults("backbone.name", backbone.name, "backbone.weights", weights):
        yield from faults
        return
    switches = tuple((name, classifier[name]) for name in ("pcm", "attention", "zoom", "pooling"))
    kind = (name_of(backbone), backbone.output_stride, switches)
    yield from _classifier_faults(*kind, _on_disk(weights), bands, weights)


def _dataset(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    from ome.data.scenes import picture_places  # noqa: PLC0415 - slow to import

    dataset = config.dataset
    if not {"prepare", "labels"} & {*stages} or is_folder_of_images(config) or split_fault(config):
        return
    layout: list[RawLayout] = []
    yield from _faults(lambda: layout.append(raw_layout(config)))
    if layout:
        channels = dataset.get("channels") or layout[0].default_channels
        yield from _faults(lambda: picture_places(tuple(channels), dataset.get("display")))
        if dataset.get("town") is not None:
            from ome.synthetic.town import check_layout  # noqa: PLC0415

            yield from _faults(lambda: check_layout(layout[0]))


TRIAL_BUILDS: Final = {
    ("dataset.",): _dataset,
    ("segmenter.recipe", "dataset.classes"): _recipe,
    ("segmenter.", "dataset.channels"): _segmenter,
    ("backbone.", "classifier.", "dataset.channels"): _classifier,
}
"""Functions that build objects as for a training and yield the errors, by the settings that they read."""


@cache
def _classifier_faults(
    name: str,
    stride: int,
    switches: tuple[tuple[str, Any], ...],
    weights: str | None,
    bands: int,
    typed: str | None,
) -> list[str]:
    from ome.inference.classifier import build_classifier  # noqa: PLC0415 - slow to import
    from ome.networks.statistics import check_convertible  # noqa: PLC0415

    backbone = {"name": name, "output_stride": stride}

    def build() -> None:
        network = build_classifier(backbone, dict(switches), 2, bands or 3, weights)
        encoder: Any = getattr(network.backbone, "encoder", None)
        if typed and encoder is not None:
            check_convertible(encoder, name, typed)

    return _faults(build, bands)


@cache
def _segmenter_faults(
    name: str, encoder: str, weights: str | None, bands: int, typed: str | None
) -> list[str]:
    from ome.networks.segmenters import build_segmenter  # noqa: PLC0415
    from ome.networks.statistics import check_convertible  # noqa: PLC0415

    def build() -> None:
        network = build_segmenter(name, encoder, 2, weights, bands or 3)
        if typed:
            check_convertible(network.encoder, encoder, typed)

    return _faults(build, bands)


def _published_faults(name_key: str, name: str, weights_key: str, weights: str | None) -> list[str]:
    """A line where an encoder is unknown, or has no such published or packaged weights."""
    from ome.networks.encoder import resolve_encoder  # noqa: PLC0415 - takes its time
    from ome.networks.hub import check_published  # noqa: PLC0415
    from ome.networks.package_weights import PACKAGE, check_packaged  # noqa: PLC0415
    from ome.networks.weights import looks_like_file  # noqa: PLC0415

    known = name == "resnet38d" or is_plugin(name, BACKBONE_PLUGINS)
    if not known and (faults := _faults(lambda: resolve_encoder(name))):
        return [f"{name_key}={name}: {faults[0]}"]
    if weights is None or looks_like_file(weights):
        return []
    faults = _faults(lambda: check_packaged(name) if weights == PACKAGE else check_published(name, weights))
    return [f"{weights_key}={weights}: {fault}" for fault in faults]


def _on_disk(weights: str | None) -> str | None:
    """The weights if they are on this disk: published ones are not downloaded for a check."""
    from ome.networks.package_weights import PACKAGE  # noqa: PLC0415 - slow to import

    return weights if weights == PACKAGE or (weights and Path(weights).is_file()) else None


def _bands(config: DictConfig) -> int:
    """Number of bands of the images; 0 if it is only known from the images."""
    channels = config.dataset.get("channels")
    if channels is None and (source := (config.dataset.get("images") or {}).get(config.dataset.bands)):
        channels = source.channels
    return len(channels or ())


def _faults(build: Callable[[], object], bands: int = 0) -> list[str]:
    """The error line of a function; if the number of `bands` is unknown (0), weights may be for any."""
    logger = logging.getLogger("ome.networks")
    logger.setLevel(logging.WARNING)  # loaded weights are reported when the training starts
    try:
        build()
    except UserError as error:
        if bands or not isinstance(error, OtherBandsError):
            return [str(error)]
    finally:
        logger.setLevel(logging.NOTSET)
    return []
