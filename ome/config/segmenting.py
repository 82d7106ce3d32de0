"""Trains segmenters and loads them, for stages seg, refine, predict and export."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig

from ome.config.fitting import train
from ome.config.objects import augmentation, hardware, is_frozen, warn_if_random
from ome.config.recipes import count_classes, loss_of, optimization_of
from ome.data.datamodules import TileDataModule
from ome.data.datasets import MaskDataset, MaskOf, certain
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, automatic_steps, crop_side, evenly_spaced
from ome.distributed.collectives import is_rank_zero
from ome.geo.areas import PixelAreas
from ome.inference.card import CARD, SegmenterCard
from ome.inference.predictor import Predictor
from ome.inference.segmenter_folders import SEGMENTER_STAGES, segmenter_stages, stage_of_network
from ome.networks.segmenters import Segmenter
from ome.pipeline.artifacts import inherited_runs
from ome.pipeline.stage import Work
from ome.plugins import code_of, name_of
from ome.training.averaging import averaging
from ome.training.checkpoints import is_trained
from ome.training.segmenter import UncertaintyWeightedSegmenter
from ome.training.segmenter_loss import SegmenterLoss

SEGMENTER_KEYS = (
    "seed",
    "segmenter",
    "prediction",
    "dataset.tile.size",
    "dataset.channels",
    "trainer.accelerator",
    "trainer.precision",
)
"""Configuration keys that change the weights or the predictions of a segmenter."""

SEGMENTER_FREE_KEYS = ("callbacks", "dataset.display", "dataset.nodata", "dataset.range")
"""Other configuration keys that stages with segmenters read: for the card, and callbacks if there are any."""


def train_segmenter(
    work: Work, folder: Path, reader: SceneReader, tiles: Sequence[Tile], mask_of: MaskOf, title: str
) -> None:
    """Writes the card of a segmenter, and trains it on the tiles unless it is trained already."""
    config, recipe = work.config, work.config.segmenter.recipe
    card, trained = card_of(config, reader), is_trained(folder)
    if is_rank_zero():
        before = SegmenterCard.read(folder) if trained and (folder / CARD).exists() else card
        replace(card, temperature=before.temperature, views=before.views).write(folder)
    if trained:
        return
    augment = augmentation(recipe, crop_side(tiles, config.dataset.tile.size))
    data = TileDataModule(
        MaskDataset(reader, tiles, mask_of, augment, config.seed),
        _validation(reader, tiles, config.dataset.tile.size, recipe.validation_tiles),
        batch=recipe.batch,
        seed=config.seed,
        workers=hardware(config).loader_processes(),
        steps=recipe.steps or automatic_steps(len(tiles), recipe.batch),
        steps_per_epoch=recipe.steps_per_epoch,
    )
    num_classes = reader.index.palette.num_classes
    loss = loss_of(
        config.segmenter, num_classes, lambda: count_classes(tiles, mask_of, num_classes, recipe.weighting)
    )
    warn_if_random(config.segmenter.weights, f"segmenter ({title})", "segmenter.weights")
    torch.manual_seed(config.seed)
    network = card.build(config.segmenter.weights)
    module = segmenter_learner(config, network, loss, data.total_steps)
    train(work, module, data, folder, title, averaging(recipe.average, data.total_steps))


def segmenter_learner(
    config: DictConfig, network: Segmenter, loss: SegmenterLoss, total_steps: int
) -> UncertaintyWeightedSegmenter:
    """The LightningModule that trains a segmenter, with the loss of `loss_of`."""
    settings = config.segmenter
    return UncertaintyWeightedSegmenter(
        network,
        total_steps=total_steps,
        optimizer=optimization_of(settings.recipe, total_steps),
        loss=loss,
        head_lr=settings.recipe.head_lr,
        auxiliary=bool(settings.auxiliary_weight),
        freeze_batchnorm=is_frozen(settings.freeze_batchnorm, settings.weights),
    )


def _validation(reader: SceneReader, training: Sequence[Tile], size: int, count: int) -> MaskDataset | None:
    """Up to `count` tiles with a reference, evenly spaced over `val`, else over the training tiles."""
    tiles = val_tiles(reader, size) or [tile for tile in training if reader.has_mask(tile.scene)]
    chosen = evenly_spaced(tiles, count)
    return MaskDataset(reader, chosen, partial(certain, reader.mask)) if chosen else None


def val_tiles(reader: SceneReader, size: int) -> list[Tile]:
    """The tiles of the scenes of `val` that have a reference, side by side."""
    scenes = [scene for scene in reader.index.split("val") if scene.mask]
    return [tile for scene in scenes for tile in scene.tiles(size, size)]


def card_of(config: DictConfig, reader: SceneReader) -> SegmenterCard:
    """The card of the configured segmenter."""
    index = reader.index
    limits, first = config.dataset.get("range"), index.split("train")[0].name
    segmenter = name_of(config.segmenter)
    return SegmenterCard(
        segmenter=segmenter,
        encoder=config.segmenter.encoder,
        classes=index.palette.classes,
        channels=reader.channels,
        picture=reader.picture,
        tile=config.dataset.tile.size,
        limits=(int(limits[0]), int(limits[1])) if limits else None,
        pixel_size=PixelAreas(reader.grid(first)).pixel_size(),
        nodata=config.dataset.get("nodata"),
        source=reader.source(first),
        code=code_of(segmenter),
    )


def predictor_of(
    config: DictConfig, folder: Path, card: SegmenterCard, scales: Sequence[float], *, flip: bool
) -> Predictor:
    """The predictor of the segmenter that was trained in a folder; see `Predictor`."""
    machine, tta = hardware(config), config.prediction.tta
    network, precision = card.load(folder), machine.precision
    return Predictor(network, machine.device(), scales, flip=flip, tta=tta, precision=precision)


def stage_of_configured_network(config: DictConfig) -> tuple[str, ...]:
    """The stage that trained the segmenter `stage.*.network`, as the requirement of a stage."""
    others = (run / stage for run in inherited_runs(config) for stage in SEGMENTER_STAGES)
    folders = [*segmenter_stages(Path(config.run_dir)), *others]
    return (stage_of_network(config.stage.network, folders, f"stage.{config.stage.name}.network"),)
