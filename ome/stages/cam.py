"""Tags -> the trained classifier and its multi-scale CAMs of every training tile."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.fitting import train
from ome.config.objects import augmentation, frozen, hardware, optimization, warn_if_random
from ome.config.selected import scene_reader
from ome.config.trainer import training_extras
from ome.data.cams import cam_path, write_cams
from ome.data.datamodules import TileDataModule
from ome.data.datasets import TagDataset
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import evenly_spaced
from ome.distributed.collectives import barrier, is_rank_zero, shard
from ome.files import write_csv
from ome.inference.classifier import (
    CamPredictor,
    Member,
    build_classifier,
    members,
    trained_classifier,
)
from ome.inference.tag_probabilities import tag_probabilities
from ome.inference.tile_scores import score_cams
from ome.networks.one_vs_all import OneVsAllNetwork
from ome.networks.seam import SeamNetwork
from ome.networks.weights import load_classifier
from ome.pipeline.layout import CAM_TITLES, TAG_SCORES, read_tag_table
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.progress import meter
from ome.scoring.rows import write_rows
from ome.training.averaging import averaging
from ome.training.checkpoints import is_trained, save_network
from ome.training.quirks import KeepHighestValidationLoss
from ome.training.seam import SeamClassifier

SCORED: Final = 256
"""Tiles of `val` whose tags are compared, evenly spaced over those there are."""


def run(work: Work) -> dict[str, Any]:
    """Trains the classifier on the tiles that passed the filter, then exports CAMs of all tagged tiles."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index)
    config, names = work.config, index.palette.names
    untrained = [
        member for member in members(config.classifier, work.folder, names) if not is_trained(member.folder)
    ]
    if untrained and work.settings.checkpoint is None:
        warn_if_random(config.backbone.weights, "classifier", "backbone.weights")
    for member in untrained:
        if work.settings.checkpoint is not None:
            _adopt(work, names, len(reader.channels))
        else:
            _train(work, member, reader, table)
    tagged = table.select("train", tagged=True)
    val, export = table.select("val", tagged=True), work.settings.export
    if export.write or val.tiles:
        device, bands = hardware(config).device(), len(reader.channels)
        network = trained_classifier(config.backbone, config.classifier, work.folder, names, bands)
        if export.write:
            _export(work, CamPredictor(device, network, reader, tagged, export), tagged)
            barrier()
            write_rows(work.folder, score_cams(work.folder, reader, tagged, CAM_TITLES["cam"]))
        if val.tiles and is_rank_zero():
            _score_tags(work.folder, network, reader, val, device)
    trained = 0 if work.settings.checkpoint else len(table.select("train", kept=True).tiles)
    return {"training_tiles": trained, "tiles": len(tagged.tiles)}


def untrained(config: DictConfig, num_classes: int, in_channels: int, weights: str | None) -> SeamNetwork:
    """The network as it starts: pretrained parts are frozen, a network without weights is trained whole.

    Args:
        config: Names backbone and classifier, and whether there are pretrained weights.
        num_classes: Number of classes of the network.
        in_channels: Bands of an image.
        weights: What is loaded: those of the configuration, or None where speed alone matters.
    """
    torch.manual_seed(config.seed)
    network = build_classifier(config.backbone, config.classifier, num_classes, in_channels, weights)
    return network.freeze() if frozen(config.backbone.freeze, config.backbone.weights) else network


def _adopt(work: Work, names: Sequence[str], in_channels: int) -> None:
    """Loads a classifier from a given checkpoint."""
    network = untrained(work.config, len(names), in_channels, work.config.backbone.weights)
    load_classifier(network, work.settings.checkpoint, names)
    if is_rank_zero():
        save_network(network, work.folder)
    barrier()


def _train(work: Work, member: Member, reader: SceneReader, table: TagTable) -> None:
    """Trains one network on the tiles that passed the filter, and on its classes alone."""
    config, settings = work.config, work.settings
    names = reader.index.palette.names[member.classes]
    kept = table.select("train", kept=True)
    augment = augmentation(settings, settings.crop or config.dataset.tile.size)
    data = TileDataModule(
        TagDataset(reader, kept.tiles, _tags(kept, member), augment, config.seed),
        _validation(settings, reader, table, member),
        batch=settings.batch,
        seed=config.seed,
        workers=hardware(config).loader_processes(),
        epochs=settings.epochs,
    )
    network = untrained(config, len(names), len(reader.channels), config.backbone.weights)
    module = learner(config, network, names, reader.index.palette.num_classes, data.total_steps)
    quirk = config.quirks.keep_highest_validation_loss
    callbacks = averaging(settings.average, data.total_steps)
    callbacks += [KeepHighestValidationLoss(member.folder)] if quirk else []
    train(work, module, data, member.folder, member.title, callbacks)


def learner(
    config: DictConfig, network: SeamNetwork, names: Sequence[str], num_classes: int, total_steps: int
) -> SeamClassifier:
    """The module that is trained.

    Args:
        config: With the settings of this stage under `stage`.
        network: The network as it starts.
        names: Its classes.
        num_classes: Number of classes of the data set, C.
        total_steps: Optimiser steps of the training.
    """
    settings, losses, rates = config.stage, config.classifier, optimization(config.stage)
    # The loss is a mean over classes. At the rate of one network for all, one of a single class would take
    # steps C times as long as the same class does there, and be ruined by the first of them.
    share = len(names) / num_classes
    return SeamClassifier(
        network,
        names,
        total_steps=total_steps,
        optimizer=replace(rates, lr=rates.lr * share),
        er_weight=losses.er_weight,
        ecr_weight=losses.ecr_weight,
        min_pool_weight=losses.min_pool_weight,
        clip=settings.clip,
        rescale=settings.rescale,
    )


def _tags(table: TagTable, member: Member) -> dict[str, NDArray[np.uint8]]:
    """The tags that the member learns, by tile name."""
    return {name: tags[member.classes] for name, tags in table.by_name.items()}


def _validation(
    settings: DictConfig, reader: SceneReader, table: TagTable, member: Member
) -> TagDataset | None:
    """Fixed tiles, evenly spaced over the val split; over the train split where there is no other."""
    # Which class is strongest at a pixel is no question to a network of one class.
    with_mask = len(table.names[member.classes]) == len(table.names)
    for split in ("val", "train"):
        tagged = table.select(split, tagged=True)
        if tagged.tiles and settings.validation_tiles:
            tiles = evenly_spaced(tagged.tiles, settings.validation_tiles)
            return TagDataset(reader, tiles, _tags(tagged, member), with_mask=with_mask)
    return None


def _export(work: Work, predictor: CamPredictor, tagged: TagTable) -> None:
    """Writes the CAMs of this process's part of the tiles that have none yet."""
    folder = work.folder / "cams"
    mine = shard(tagged.tiles)
    missing = [tile for tile in mine if not cam_path(folder, tile).exists()]
    with meter("multi-scale CAMs, tiles", len(mine), len(mine) - len(missing)) as shown:
        for tile, cams in zip(missing, predictor(missing), strict=True):
            write_cams(cam_path(folder, tile), cams, tagged.by_name[tile.name])
            shown.advance()


def _score_tags(
    folder: Path,
    network: SeamNetwork | OneVsAllNetwork,
    reader: SceneReader,
    tagged: TagTable,
    device: torch.device,
) -> None:
    """Counts for each class the tiles of `val` that show it, that the classifier tags, and that are both."""
    tiles = evenly_spaced(tagged.tiles, SCORED)
    given = tag_probabilities(network, reader, tiles, device, "tags of val") > 0.5
    shown = np.stack([tagged.by_name[tile.name] for tile in tiles]).astype(bool)
    counts = zip(tagged.names, shown.sum(0), given.sum(0), (shown & given).sum(0), strict=True)
    write_csv(folder / TAG_SCORES, ("class", "shown", "given", "right"), counts)


def _wanted(config: DictConfig) -> bool:
    """Not on the way to pseudo masks of CAMs that were made elsewhere."""
    stages, refine = config.stage, config.stage.refine
    refined = stages.until in {"refine", "report"} and refine.rounds > 0 and refine.cams is not None
    return stages.until in {"cam", "affinity", "ablation"} or stages.pseudo.cams in CAM_TITLES or refined


STAGE = Stage(
    "cam",
    run,
    requires=("prepare", "labels"),
    config_keys=(
        "seed",
        "backbone",
        "classifier",
        "dataset.tile.size",
        "dataset.channels",
        "quirks.keep_highest_validation_loss",
        "trainer.accelerator",
        "trainer.precision",
    ),
    free_keys=("callbacks", "dataset.display"),
    external_files=lambda config: [*identity(config.backbone.weights), *identity(config.stage.checkpoint)],
    optional_config=training_extras,
    enabled=_wanted,
    version=3,
)
