"""Measures the seconds of a step and of a tile on this machine, with the networks of a run."""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch.nn import functional as F

from ome.cli.amounts import Known, Unit
from ome.cli.drawn_tiles import Samples
from ome.config.classifying import classifier_learner, initial_classifier
from ome.config.objects import augmentation, hardware, labeller_of
from ome.config.recipes import recipe_settings
from ome.config.segmenting import segmenter_learner
from ome.config.selected import settings_of
from ome.data.datamodules import TileDataModule
from ome.data.datasets import MaskDataset, TagDataset, full_weight
from ome.data.tiles import Tile
from ome.distributed.processes import own_cores
from ome.inference.classifier import CamPredictor
from ome.inference.map_rows import windows_at_a_time
from ome.inference.predictor import Predictor
from ome.networks.one_vs_all import OneVsAllNetwork
from ome.networks.segmenters import build_segmenter
from ome.plugins import name_of
from ome.training.fit import fitted_precision, quieten
from ome.training.hardware import autocast

BUDGET: Final = 1.0
"""Seconds for which each unit of work is repeated after the warm-up."""
SLOW: Final = 20.0
"""Seconds after which a single repetition is enough."""
FEW: Final = 3
"""Least number of repetitions of quick work: one may be disturbed."""
MOST: Final = 20
"""Largest number of repetitions."""
EXPORTED: Final = 4
"""Number of tiles whose CAMs are timed together."""


class Timed(NamedTuple):
    """How long a unit of work takes.

    Attributes:
        seconds: Seconds of one unit.
        number: Number of units that were timed.
    """

    seconds: float
    number: int


def timings(config: DictConfig, units: Collection[Unit], known: Known) -> dict[Unit, Timed]:
    """Times units of work on tiles of the prepared scenes, or on synthetic ones before there are scenes.

    Args:
        config: The composed configuration, of a single process.
        units: What to time; only the networks that they need are built.
        known: What is known about the data.
    """
    samples, timed = Samples.of(config, known), dict[Unit, Timed]()
    if any(unit.startswith(("classifier", "CAM")) for unit in units):
        timed |= _classifier(settings_of(config, "cam"), units, samples)
    if "CRF tile" in units:
        timed["CRF tile"] = _crf(settings_of(config, "pseudo"), samples)
    if any(unit.startswith("segmenter") for unit in units):
        timed |= _segmenter(config, units, samples)
    return timed


def _classifier(config: DictConfig, units: Collection[Unit], samples: Samples) -> dict[Unit, Timed]:
    settings, reader, names = config.stage, samples.reader, samples.table.names
    device, timed = hardware(config).device(), dict[Unit, Timed]()
    trained = names[:1] if config.classifier.one_vs_all else names
    network = initial_classifier(config, len(trained), len(reader.channels), None)
    if "classifier step" in units:
        augment = augmentation(settings, settings.crop or config.dataset.tile.size)
        tags = {name: tags[: len(trained)] for name, tags in samples.table.by_name.items()}
        data = TagDataset(reader, samples.tiles(settings.batch), tags, augment, config.seed)
        module = classifier_learner(config, network, trained, len(names), MOST + 1)
        timed["classifier step"] = _steps(config, module, data, settings.batch)
    if "classifier validation tile" in units:
        timed["classifier validation tile"] = _forward(config, network, samples, settings.batch)
    if "CAM tile" in units:
        whole = OneVsAllNetwork([network for _ in names]) if config.classifier.one_vs_all else network
        predictor = CamPredictor(device, whole, reader, samples.table, settings.export)
        tiles = samples.tiles(EXPORTED)
        timed["CAM tile"] = _repeated(lambda: list(predictor(tiles)), len(tiles), device)
    return timed


def _segmenter(config: DictConfig, units: Collection[Unit], samples: Samples) -> dict[Unit, Timed]:
    recipe, reader, machine = config.segmenter.recipe, samples.reader, hardware(config)
    num_classes, timed = len(samples.table.names), dict[Unit, Timed]()
    name, encoder, prediction = name_of(config.segmenter), config.segmenter.encoder, config.prediction
    network = build_segmenter(name, encoder, num_classes, None, len(reader.channels))
    if "segmenter step" in units:
        augment = augmentation(recipe, config.dataset.tile.size)
        tiles = samples.tiles(recipe.batch)
        data = MaskDataset(reader, tiles, lambda tile: full_weight(samples.mask(tile)), augment, config.seed)
        settings = recipe_settings(recipe, num_classes, lambda: [1.0] * num_classes)
        module = segmenter_learner(config, network, num_classes, settings, max(recipe.steps, MOST + 1))
        timed["segmenter step"] = _steps(config, module, data, recipe.batch)
    if "segmenter validation tile" in units:
        timed["segmenter validation tile"] = _forward(config, network, samples, recipe.batch)
    views: dict[Unit, tuple[Any, int]] = {
        "segmenter window": (
            prediction,
            windows_at_a_time(prediction.batch, config.dataset.tile.size, machine.device()),
        ),
        "segmenter tile": (config.stage.refine, 1),
    }
    for unit in views.keys() & set(units):
        view, batch = views[unit]
        predict = Predictor(
            network,
            machine.device(),
            view.scales,
            flip=view.flip,
            tta=prediction.tta,
            precision=machine.precision,
        )
        images = samples.images(batch, config.dataset.tile.size)
        timed[unit] = _repeated(partial(predict, images), batch, machine.device())
    return timed


def _crf(config: DictConfig, samples: Samples) -> Timed:
    """Times the pseudo labels of as many tiles in parallel as the stage processes."""
    threads, labeller = config.stage.threads or own_cores(), labeller_of(config)
    tiles = samples.tiles(threads)
    tiles = [tiles[number % len(tiles)] for number in range(threads)]

    def label(group: Sequence[Tile]) -> None:
        images = [samples.reader.display(tile) for tile in group]
        stacks = [_maps(tile, samples.table.by_name[tile.name]) for tile in group]
        list(labeller(images, stacks))

    label([replace(tiles[0], height=min(tiles[0].height, 32))])  # compiles its loops
    size = labeller.tiles_at_a_time((len(samples.table.names), tiles[0].height, tiles[0].width))
    groups = [[tile] * size for tile in tiles]
    with ThreadPoolExecutor(threads) as pool:
        return _repeated(lambda: list(pool.map(label, groups)), threads * size, hardware(config).device())


def _maps(tile: Tile, tags: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Smooth class maps (C, H, W) in [0, 1] of the tagged classes."""
    coarse = torch.rand(1, len(tags), 8, 8, generator=torch.Generator().manual_seed(0))
    maps = F.interpolate(coarse, (tile.height, tile.width), mode="bilinear")[0]
    result: NDArray[np.float32] = maps.numpy() * tags[:, None, None].astype(np.float32)
    return result


def _forward(config: DictConfig, network: torch.nn.Module, samples: Samples, batch: int) -> Timed:
    machine = hardware(config)
    device = machine.device()
    images = samples.tensor(batch, config.dataset.tile.size).to(device)
    network.to(device).eval()

    def forward() -> None:
        with torch.inference_mode(), autocast(device, machine.precision):
            network(images)

    return _repeated(forward, batch, device)


def _repeated(work: Callable[[], object], units: int, device: torch.device) -> Timed:
    """Seconds per unit of a call that does several: the median of the calls after a warm-up."""
    _seconds(work, device)
    times: list[float] = []
    while not _suffices(times):
        times.append(_seconds(work, device))
    return Timed(median(times) / units, units * len(times))


def _suffices(warm: Sequence[float]) -> bool:
    """Whether enough repetitions were timed."""
    spent = sum(warm)
    return len(warm) == MOST or (len(warm) >= FEW and spent > BUDGET) or spent > SLOW


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class _Clock(pl.Callback):
    """Records when steps end, and stops the training when enough were timed."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @property
    def warm(self) -> list[float]:
        """Seconds of each step but the first, which loads and compiles code for the others."""
        return [end - before for before, end in pairwise(self.ends)]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Records the time."""
        _wait(pl_module.device)
        self.ends.append(time.perf_counter())
        trainer.should_stop = _suffices(self.warm)


def _load(data: Any) -> None:  # noqa: ANN401
    """Loads the augmentation, and what torch imports at its first optimiser step, before steps are timed."""
    data[0]
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.SGD([weight], lr=0.0).step()


def _steps(config: DictConfig, module: pl.LightningModule, data: Any, batch: int) -> Timed:  # noqa: ANN401
    """Times steps as `fit` takes them, and leaves nothing behind."""
    machine, clock = hardware(config), _Clock()
    quieten()
    precision, _ = fitted_precision(module, machine)
    tiles = TileDataModule(
        data,
        batch=batch,
        seed=config.seed,
        workers=machine.loader_processes(),
        steps=MOST + 1,
        steps_per_epoch=MOST + 1,
    )
    trainer = pl.Trainer(
        accelerator=machine.accelerator,
        devices=[machine.device().index] if machine.uses_gpu else 1,
        precision=precision,  # type: ignore[arg-type]  # a string from the configuration
        max_epochs=1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    _load(data)
    trainer.fit(module, tiles)
    return Timed(median(clock.warm), len(clock.warm))
