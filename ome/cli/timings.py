"""Measures the seconds of a step and of a tile on this machine, with the networks of a run."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch.nn import functional as F

from ome.cli.stopwatch import repeated, timed_steps
from ome.cli.timed_parts import MOST, Allowance, Part, Timed
from ome.cli.timing_tiles import Samples
from ome.cli.workload import DataFacts, Unit
from ome.config.classifying import classifier_learner, initial_classifier
from ome.config.objects import augmentation, hardware, labeller_of
from ome.config.recipes import loss_of
from ome.config.sections import settings_of
from ome.config.segmenting import segmenter_learner
from ome.data.datasets import MaskDataset, TagDataset, certain
from ome.data.tiles import MOST_STEPS, Tile, crop_side
from ome.distributed.processes import process_cores
from ome.geo.windows import window_side
from ome.inference.classifier import CamPredictor
from ome.inference.map_rows import windows_at_a_time
from ome.inference.predictor import Predictor
from ome.networks.one_vs_all import OneVsAllNetwork
from ome.networks.segmenters import build_segmenter
from ome.plugins import name_of
from ome.training.hardware import autocast

EXPORTED: Final = 4
"""Number of tiles whose CAMs are timed together."""


def timings(config: DictConfig, units: Collection[Unit], facts: DataFacts) -> dict[Unit, Timed]:
    """Times units of work on tiles of the prepared scenes, or on synthetic ones before there are scenes.

    Args:
        config: The composed configuration, of a single process.
        units: What to time; only the networks that they need are built.
        facts: What is known about the data.
    """
    samples, timed, allowed = Samples.of(config, facts), dict[Unit, Timed](), Allowance(len(units) + 2)
    if any(unit.startswith(("classifier", "CAM")) for unit in units):
        timed |= _classifier(settings_of(config, "cam"), units, samples, allowed)
    if "CRF tile" in units:
        timed["CRF tile"] = _crf(settings_of(config, "pseudo"), samples, allowed.limit())
    if any(unit.startswith("segmenter") for unit in units):
        timed |= _segmenter(config, units, samples, allowed)
    return timed


def _classifier(
    config: DictConfig, units: Collection[Unit], samples: Samples, allowed: Allowance
) -> dict[Unit, Timed]:
    settings, reader, names = config.stage, samples.reader, samples.table.names
    device, timed = hardware(config).device(), dict[Unit, Timed]()
    trained = names[:1] if config.classifier.one_vs_all else names
    network = initial_classifier(config, len(trained), len(reader.channels), None)
    if {"classifier validation tile", "classifier step"} & {*units}:
        forward = _forward(config, network, samples, settings.batch, allowed.limit())
        timed["classifier validation tile"] = forward
    if "CAM tile" in units:
        whole = OneVsAllNetwork([network for _ in names]) if config.classifier.one_vs_all else network
        predictor = CamPredictor(device, whole, reader, samples.table, settings.export)
        tiles = samples.part(len(samples.tiles(EXPORTED)))
        timed["CAM tile"] = repeated(
            lambda some: list(predictor(some)), samples.cropped, tiles, device, allowed.limit()
        )
    if "classifier step" in units:
        crop = settings.crop or crop_side(samples.table.tiles, config.dataset.tile.size)
        tags = {name: tags[: len(trained)] for name, tags in samples.table.by_name.items()}

        def data(part: Part) -> TagDataset:
            tiles = samples.crops(part, crop)
            return TagDataset(reader, tiles, tags, augmentation(settings, part.height), config.seed)

        module = classifier_learner(config, network, trained, len(names), MOST + 1)
        step = Part(settings.batch, crop, crop)
        timed["classifier step"] = timed_steps(config, module, data, step, allowed.limit(), forward.seconds)
    return timed


def _segmenter(
    config: DictConfig, units: Collection[Unit], samples: Samples, allowed: Allowance
) -> dict[Unit, Timed]:
    recipe, reader, machine = config.segmenter.recipe, samples.reader, hardware(config)
    num_classes, timed, size = len(samples.table.names), dict[Unit, Timed](), config.dataset.tile.size
    name, encoder, prediction = name_of(config.segmenter), config.segmenter.encoder, config.prediction
    network = build_segmenter(name, encoder, num_classes, None, len(reader.channels))
    if {"segmenter validation tile", "segmenter step"} & {*units}:
        forward = _forward(config, network, samples, recipe.batch, allowed.limit())
        timed["segmenter validation tile"] = forward
    side = window_side(size, prediction.scales)
    at_a_time = windows_at_a_time(prediction.batch, side, machine.device())
    views: dict[Unit, tuple[Any, Part]] = {
        "segmenter window": (prediction, Part(at_a_time, side, side)),
        "segmenter tile": (config.stage.refine, Part(1, size, size)),
    }
    for unit in views.keys() & set(units):
        view, windows = views[unit]
        predict = Predictor(
            network,
            machine.device(),
            view.scales,
            flip=view.flip,
            tta=prediction.tta,
            precision=machine.precision,
        )
        timed[unit] = repeated(predict, samples.images, windows, machine.device(), allowed.limit())
    if "segmenter step" in units:
        crop = crop_side(samples.table.tiles, size)

        def data(part: Part) -> MaskDataset:
            tiles, augment = samples.crops(part, crop), augmentation(recipe, part.height)
            return MaskDataset(reader, tiles, partial(certain, samples.mask), augment, config.seed)

        steps = max(recipe.steps or MOST_STEPS, MOST + 1)
        loss = loss_of(config.segmenter, num_classes, lambda: [1.0] * num_classes)
        module = segmenter_learner(config, network, loss, steps)
        step = Part(recipe.batch, crop, crop)
        timed["segmenter step"] = timed_steps(config, module, data, step, allowed.limit(), forward.seconds)
    return timed


def _crf(config: DictConfig, samples: Samples, limit: float) -> Timed:
    """Times the pseudo labels of as many tiles in parallel as the stage processes."""
    threads, labeller = config.stage.threads or process_cores(), labeller_of(config)
    whole = samples.part(threads)
    at_once = labeller.tiles_at_a_time((len(samples.table.names), whole.height, whole.width))

    def groups(part: Part) -> list[list[Tile]]:
        tiles = samples.cropped(part)
        return [[tiles[number % len(tiles)]] * at_once for number in range(threads)]

    def label(group: Sequence[Tile]) -> None:
        images = [samples.reader.display(tile) for tile in group]
        stacks = [_maps(tile, samples.table.by_name[tile.name]) for tile in group]
        list(labeller(images, stacks, [samples.reader.valid(tile) for tile in group]))

    with ThreadPoolExecutor(threads) as pool:
        device = hardware(config).device()
        timed = repeated(
            lambda some: list(pool.map(label, some)), groups, whole, device, limit, side_by_side=True
        )
    return Timed(timed.seconds / at_once, timed.number * at_once)


def _maps(tile: Tile, tags: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Smooth class maps (C, H, W) in [0, 1] of the tagged classes."""
    coarse = torch.rand(1, len(tags), 8, 8, generator=torch.Generator().manual_seed(0))
    maps = F.interpolate(coarse, (tile.height, tile.width), mode="bilinear")[0]
    result: NDArray[np.float32] = maps.numpy() * tags[:, None, None].astype(np.float32)
    return result


def _forward(
    config: DictConfig, network: torch.nn.Module, samples: Samples, batch: int, limit: float
) -> Timed:
    machine, size = hardware(config), config.dataset.tile.size
    device = machine.device()
    network.to(device).eval()

    def forward(some: torch.Tensor) -> None:
        with torch.inference_mode(), autocast(device, machine.precision):
            network(some)

    def images(part: Part) -> torch.Tensor:
        return samples.tensor(part).to(device)

    return repeated(forward, images, Part(batch, size, size), device, limit)
