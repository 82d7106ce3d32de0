"""What settings say together, and what machine and disk say to them, before the first stage starts."""

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

CRF_STAGES: Final = frozenset({"affinity", "pseudo", "ablation", "refine"})
NETWORK_STAGES: Final = CRF_STAGES | {"cam", "seg", "predict", "export", "suggest"}


def cross_faults(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    """Compares settings with each other, with the machine and with the disk, as far as stages need them.

    Args:
        config: The composed configuration, with settings of the right types.
        stages: The stages that will run.

    Yields:
        A line for each fault that says what to type instead.
    """
    for section in (_training, _networks, _hardware, _extras, _files):
        yield from section(config, stages)


def _training(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    recipe = config.segmenter.recipe
    if {"seg", "refine"} & {*stages}:
        if recipe.warmup_steps and recipe.warmup_steps >= recipe.steps:
            yield (
                f"segmenter.recipe.warmup_steps={recipe.warmup_steps} is all of "
                f"segmenter.recipe.steps={recipe.steps}: lower it"
            )
        if recipe.batch == 1 and config.segmenter.name in POOLED:
            yield (
                f"segmenter.recipe.batch=1: {config.segmenter.name} normalises maps of a single pixel, which "
                "takes two tiles; type segmenter.recipe.batch=2, or segmenter=fpn"
            )
    if "prepare" in stages and (fault := split_fault(config)) is not None:
        yield fault


def _networks(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    if "cam" in stages and "_target_" not in config.backbone:
        name, stride = config.backbone.name, config.backbone.output_stride
        if name == "resnet38d" and stride != 8:
            yield f"backbone.output_stride={stride}: resnet38d has 8; other encoders can have 16 or 32"
        elif name != "resnet38d" and stride in {8, 16, 32} and (fault := _encoder_fault(name, stride)):
            yield fault
    if {"seg", "refine"} & {*stages} and "_target_" not in config.segmenter:
        fault = _segmenter_fault(name_of(config.segmenter), config.segmenter.encoder)
        yield from [fault] if fault else []


@cache
def _encoder_fault(name: str, stride: int) -> str | None:
    """Builds the encoder, which is how its library tells what does not fit."""
    from ome.networks.encoder import make_encoder  # noqa: PLC0415 - takes its time

    return _fault(lambda: make_encoder(name, 3, stride))


@cache
def _segmenter_fault(name: str, encoder: str) -> str | None:
    from ome.networks.segmenters import build_segmenter  # noqa: PLC0415

    return _fault(lambda: build_segmenter(name, encoder, 2))


def _fault(build: Callable[[], object]) -> str | None:
    try:
        build()
    except UserError as error:
        return str(error)
    return None


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
