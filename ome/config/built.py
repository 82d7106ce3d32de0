"""Builds the objects that stages will build, to find settings that do not fit before the first stage."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig

from ome.config.raw_data import is_folder_of_images, raw_layout, split_fault
from ome.data.raw import RawLayout
from ome.errors import UserError
from ome.plugins import name_of

SEVERAL: Final = (
    "AffinityNet starts from the classifier's backbone, and a network for each class leaves several: "
    "leave the walk out by stage.pseudo.cams=cam stage.ablation.random_walk=false, or use "
    "classifier.one_vs_all=false"
)


def _recipe(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    if not {"seg", "refine"} & {*stages}:
        return
    from ome.config.recipes import recipe_settings  # noqa: PLC0415 - takes its time

    recipe, weights = config.segmenter.recipe, config.segmenter.recipe.class_weights
    # The number of classes is 0 where the table of tags will tell it.
    number = len(config.dataset.get("classes") or (() if isinstance(weights, str) else weights or ()))
    yield from _faults(lambda: recipe_settings(recipe, number, lambda: [1] * number))


def _segmenter(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    segmenter = config.segmenter
    if {"seg", "refine"} & {*stages} and "_target_" not in segmenter:
        yield from _published_faults(segmenter.encoder, segmenter.weights)
        kind = (name_of(segmenter), segmenter.encoder)
        yield from _segmenter_faults(*kind, *_weights_and_bands(segmenter.weights, config), segmenter.weights)


def _classifier(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    backbone, classifier, checkpoint = config.backbone, config.classifier, config.stage.cam.checkpoint
    if classifier.one_vs_all and "affinity" in stages:
        yield SEVERAL
    if "cam" not in stages:
        return
    if classifier.one_vs_all and checkpoint:
        yield (
            "stage.cam.checkpoint is one network of all classes, and classifier.one_vs_all=true trains "
            "one for each: change one of the two"
        )
    if classifier.pcm and not classifier.ecr_weight and not classifier.min_pool_weight:
        from ome.training.seam import UNTRAINED_PCM  # noqa: PLC0415 - takes its time

        yield UNTRAINED_PCM
    side = round(config.dataset.tile.size * classifier.zoom)
    if side < backbone.output_stride:
        yield (
            f"dataset.tile.size={config.dataset.tile.size} is less than a cell of the CAM, "
            f"backbone.output_stride={backbone.output_stride}: raise it"
        )
    if "_target_" not in backbone:
        weights = None if checkpoint else backbone.weights
        yield from _published_faults(backbone.name, weights)
        kind = (name_of(backbone), backbone.output_stride, classifier.pcm, classifier.attention)
        yield from _classifier_faults(*kind, *_weights_and_bands(weights, config), weights)


def _dataset(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    from ome.data.scenes import picture_places  # noqa: PLC0415 - takes its time

    dataset = config.dataset
    if not {"prepare", "labels"} & {*stages} or is_folder_of_images(config) or split_fault(config):
        return
    layout: list[RawLayout] = []
    yield from _faults(lambda: layout.append(raw_layout(config)))
    if layout:
        given = dataset.get("channels") or layout[0].default_channels
        yield from _faults(lambda: picture_places(tuple(given), dataset.get("display")))


BUILT: Final = {
    ("dataset.",): _dataset,
    ("segmenter.recipe", "dataset.classes"): _recipe,
    ("segmenter.", "dataset.channels"): _segmenter,
    ("backbone.", "classifier.", "dataset.channels"): _classifier,
}
"""What is built as it will be trained, so that its parts tell what does not fit, by the settings it takes."""


@cache
def _classifier_faults(
    name: str,
    stride: int,
    pcm: bool,
    attention: float | None,
    weights: str | None,
    bands: int,
    typed: str | None,
) -> list[str]:
    from ome.inference.classifier import build_classifier  # noqa: PLC0415 - takes its time
    from ome.networks.statistics import check_convertible  # noqa: PLC0415

    backbone, classifier = {"name": name, "output_stride": stride}, {"pcm": pcm, "attention": attention}

    def build() -> None:
        network = build_classifier(backbone, classifier, 2, bands, weights)
        encoder: Any = getattr(network.backbone, "encoder", None)
        if typed and encoder is not None:
            check_convertible(encoder, name, typed)

    return _faults(build)


@cache
def _segmenter_faults(
    name: str, encoder: str, weights: str | None, bands: int, typed: str | None
) -> list[str]:
    from ome.networks.segmenters import build_segmenter  # noqa: PLC0415
    from ome.networks.statistics import check_convertible  # noqa: PLC0415

    def build() -> None:
        network = build_segmenter(name, encoder, 2, weights, bands)
        if typed:
            check_convertible(network.encoder, encoder, typed)

    return _faults(build)


def _published_faults(name: str, weights: str | None) -> list[str]:
    from ome.networks.hub import check_published  # noqa: PLC0415 - takes its time
    from ome.networks.packaged import PACKAGE  # noqa: PLC0415
    from ome.networks.weights import looks_like_file  # noqa: PLC0415

    if weights is None or weights == PACKAGE or looks_like_file(weights):
        return []
    return _faults(lambda: check_published(name, weights))


def _weights_and_bands(weights: str | None, config: DictConfig) -> tuple[str | None, int]:
    """Weights that lie on this disk, and the bands of the images that they have to fit.

    Published weights are not asked for before they are needed. Where only the images know their bands, files
    are left out: they may be for another number of bands than three.
    """
    from ome.networks.packaged import PACKAGE  # noqa: PLC0415 - takes its time

    channels = config.dataset.get("channels")
    if channels is None and (source := (config.dataset.get("images") or {}).get(config.dataset.bands)):
        channels = source.channels
    is_here = weights == PACKAGE or bool(weights and channels and Path(weights).is_file())
    return weights if is_here else None, len(channels or (1, 2, 3))


def _faults(build: Callable[[], object]) -> list[str]:
    logger = logging.getLogger("ome.networks.weights")
    logger.disabled = True  # what was loaded is said when it is trained
    try:
        build()
    except UserError as error:
        return [str(error)]
    finally:
        logger.disabled = False
    return []
