"""What settings say together, and what machine and disk say to them, before the first stage starts."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from omegaconf import DictConfig, OmegaConf

from ome.config.raw_data import split_fault
from ome.data.sheets import SPREADSHEETS
from ome.errors import UserError
from ome.extras import missing_modules
from ome.plugins import name_of

POOLED: Final = ("deeplabv3plus", "upernet")
"""Segmenters with BatchNorm over maps that are pooled to a single pixel."""

SEVERAL: Final = (
    "AffinityNet starts from the classifier's backbone, and a network for each class leaves several: "
    "leave the walk out by stage.pseudo.cams=cam stage.ablation.random_walk=false, or use "
    "classifier.one_vs_all=false"
)

CRF_STAGES: Final = frozenset({"affinity", "pseudo", "ablation", "refine"})
NETWORK_STAGES: Final = CRF_STAGES | {"cam", "seg", "predict", "export", "suggest"}


def cross_faults(config: DictConfig, stages: Sequence[str], wrong: Sequence[str] = ()) -> Iterator[str]:
    """Compares settings with each other, with the machine and with the disk, as far as stages need them.

    Args:
        config: The composed configuration.
        stages: The stages that will run.
        wrong: Addresses of settings that have the wrong type: nothing is built of these.

    Yields:
        A line for each fault that says what to type instead.
    """
    for section in (_training, _hardware, _extras, _files):
        yield from section(config, stages)
    for groups, build in _BUILT.items():
        if not any(key.startswith(groups) for key in wrong):
            yield from build(config, stages)


def _training(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    recipe = config.segmenter.recipe
    if {"seg", "refine"} & {*stages} and recipe.batch == 1 and config.segmenter.name in POOLED:
        yield (
            f"segmenter.recipe.batch=1: {config.segmenter.name} normalises maps of a single pixel, which "
            "takes two tiles; type segmenter.recipe.batch=2, or segmenter=fpn"
        )
    if "prepare" in stages and (fault := split_fault(config)) is not None:
        yield fault


def _recipe(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    if not {"seg", "refine"} & {*stages}:
        return
    from ome.config.recipes import recipe_settings  # noqa: PLC0415 - takes its time

    recipe = config.segmenter.recipe
    classes = config.dataset.get("classes") or recipe.class_weights or ()
    yield from _faults(lambda: recipe_settings(recipe, len(classes), lambda: [1] * len(classes)))


def _segmenter(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    segmenter = config.segmenter
    if {"seg", "refine"} & {*stages} and "_target_" not in segmenter:
        name, weights = name_of(segmenter), _file(segmenter.weights)
        yield from _segmenter_faults(name, segmenter.encoder, weights, _bands(config))


def _classifier(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    backbone, classifier, checkpoint = config.backbone, config.classifier, config.stage.cam.checkpoint
    if classifier.one_vs_all and "affinity" in stages:
        yield SEVERAL
    if "cam" not in stages:
        return
    if classifier.one_vs_all and checkpoint:
        yield (
            "stage.cam.checkpoint is one network of all classes, and classifier.one_vs_all=true trains "
            "one for each: set one of the two otherwise"
        )
    if classifier.pcm and not classifier.ecr_weight and not classifier.min_pool_weight:
        from ome.training.seam import UNTRAINED_PCM  # noqa: PLC0415 - takes its time

        yield UNTRAINED_PCM
    if "_target_" not in backbone:
        weights = None if checkpoint else _file(backbone.weights)
        kind = (name_of(backbone), backbone.output_stride, classifier.pcm, classifier.attention)
        yield from _classifier_faults(*kind, weights, _bands(config))


_BUILT: Final = {
    ("segmenter.recipe", "dataset.classes"): _recipe,
    ("segmenter.", "dataset.channels"): _segmenter,
    ("backbone.", "classifier.", "dataset.channels"): _classifier,
}
"""What is built as it will be trained, so that its parts tell what does not fit, by the settings it takes."""


@cache
def _classifier_faults(
    name: str, stride: int, pcm: bool, attention: float | None, weights: str | None, bands: int
) -> list[str]:
    from ome.inference.classifier import build_classifier  # noqa: PLC0415 - takes its time

    backbone, classifier = {"name": name, "output_stride": stride}, {"pcm": pcm, "attention": attention}
    return _faults(lambda: build_classifier(backbone, classifier, 2, bands, weights))


@cache
def _segmenter_faults(name: str, encoder: str, weights: str | None, bands: int) -> list[str]:
    from ome.networks.segmenters import build_segmenter  # noqa: PLC0415

    return _faults(lambda: build_segmenter(name, encoder, 2, weights, bands))


def _bands(config: DictConfig) -> int:
    return len(config.dataset.get("channels") or (1, 2, 3))


def _file(weights: str | None) -> str | None:
    """Weights that lie on this disk; whether the others exist is not asked before they are needed."""
    return weights if weights is not None and (weights == "package" or Path(weights).is_file()) else None


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


def _hardware(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    accelerator, devices = config.trainer.accelerator, config.trainer.devices
    if devices > 1 and config.trainer.strategy == "auto":
        yield f"trainer.devices={devices}: several take trainer.strategy=ddp; type trainer=ddp or ddp_cpu"
    if accelerator not in {"gpu", "cuda"} or not NETWORK_STAGES & {*stages}:
        return
    import torch  # noqa: PLC0415 - takes its time

    count = torch.cuda.device_count()
    if not torch.cuda.is_available():
        yield f"trainer.accelerator={accelerator}, but torch finds no GPU: type trainer=cpu"
    elif devices > count:
        yield f"trainer.devices={devices}, but there are {count} GPUs: type trainer.devices={count}"


def _extras(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    table = str(config.dataset.get("tags"))
    crf, predict = config.crf.backend, config.stage.predict
    sheet = table.lower().endswith(SPREADSHEETS) and bool({"prepare", "labels"} & {*stages})
    asked = {
        "reference": ("crf.backend=pydensecrf", crf == "pydensecrf" and bool(CRF_STAGES & {*stages})),
        "tensorboard": ("logger=tensorboard", config.logger.kind == "tensorboard"),
        "vector": ("stage.predict.polygons=true", "predict" in stages and predict.polygons),
        "export": ("stage=export", "export" in stages),
        "spreadsheet": (f"dataset.tags={table}", sheet),
    }
    for extra, (what, needed) in asked.items():
        if needed and (missing := missing_modules(extra)):
            yield f'{what} needs {" and ".join(missing)}: pip install "ome[{extra}]"'


def _files(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    """Files and folders that stages will read."""
    if path := config.dataset.get("tags") if {"prepare", "labels"} & {*stages} else None:
        yield from _missing("dataset.tags", path)
    if "predict" in stages and config.stage.predict.scene:
        yield from _missing("stage.predict.scene", config.stage.predict.scene)
    checkpoint = config.stage.cam.checkpoint if "cam" in stages else None
    if checkpoint:
        yield from _missing("stage.cam.checkpoint", checkpoint)
    weights = {
        "backbone.weights": "cam" in stages and not checkpoint,
        "segmenter.weights": bool({"seg", "refine"} & {*stages}),
    }
    for key, needed in weights.items():
        if needed and (path := OmegaConf.select(config, key)):
            from ome.networks.weights import looks_like_file  # noqa: PLC0415 - takes its time

            if looks_like_file(path):
                yield from _missing(key, path)


def _missing(key: str, path: str) -> Iterator[str]:
    if not Path(path).exists():
        yield f"{key}={path} does not exist: check the path"
