"""Builds and trains the networks of the classifier."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.fitting import train
from ome.config.objects import augmentation, hardware, is_frozen, optimization
from ome.data.datamodules import TileDataModule
from ome.data.datasets import TagDataset
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import automatic_epochs, crop_side, evenly_spaced
from ome.inference.classifier import Member, build_classifier
from ome.networks.seam import SeamNetwork
from ome.pipeline.stage import Work
from ome.training.averaging import averaging
from ome.training.quirks import KeepHighestValidationLoss
from ome.training.seam import SeamClassifier


def initial_classifier(
    config: DictConfig, num_classes: int, in_channels: int, weights: str | None
) -> SeamNetwork:
    """The network before training; without pretrained weights no part of it is frozen.

    `weights` are those of the configuration, or None where only the speed matters.
    """
    torch.manual_seed(config.seed)
    network = build_classifier(config.backbone, config.classifier, num_classes, in_channels, weights)
    return network.freeze() if is_frozen(config.backbone.freeze, config.backbone.weights) else network


def classifier_learner(
    config: DictConfig, network: SeamNetwork, names: Sequence[str], num_classes: int, total_steps: int
) -> SeamClassifier:
    """The LightningModule that trains a network of the classes `names`, of the C classes of the dataset."""
    settings, losses, rates = config.stage, config.classifier, optimization(config.stage, total_steps)
    if rates.name == "sgd":
        # The loss is a mean over classes. With the learning rate for C classes, a network of one class would
        # take steps C times as long as that class takes in a network of all, and the first steps would ruin
        # it. The steps of AdamW do not depend on the scale of the loss.
        rates = replace(rates, lr=rates.lr * len(names) / num_classes)
    return SeamClassifier(
        network,
        names,
        total_steps=total_steps,
        optimizer=rates,
        er_weight=losses.er_weight,
        ecr_weight=losses.ecr_weight,
        min_pool_weight=losses.min_pool_weight,
        clip=settings.clip,
        rescale=settings.rescale,
    )


def train_classifier(work: Work, member: Member, reader: SceneReader, table: TagTable) -> None:
    """Trains one network of the classifier, for its classes, on the tiles that the filter kept."""
    config, settings = work.config, work.settings
    names = table.names[member.classes]
    kept = table.select("train", kept=True)
    learnt = None if kept.too_small is None else kept.learnt[:, member.classes]
    augment = augmentation(settings, settings.crop or crop_side(kept.tiles, config.dataset.tile.size))
    data = TileDataModule(
        TagDataset(reader, kept.tiles, _tags(kept, member), augment, config.seed, learnt=learnt),
        _validation(settings, reader, table, member),
        batch=settings.batch,
        seed=config.seed,
        workers=hardware(config).loader_processes(),
        epochs=settings.epochs or automatic_epochs(len(kept.tiles), settings.batch),
    )
    network = initial_classifier(config, len(names), len(reader.channels), config.backbone.weights)
    module = classifier_learner(config, network, names, len(table.names), data.total_steps)
    quirk = config.quirks.keep_highest_validation_loss
    callbacks = averaging(settings.average, data.total_steps)
    callbacks += [KeepHighestValidationLoss(member.folder)] if quirk else []
    train(work, module, data, member.folder, member.title, callbacks)


def _tags(table: TagTable, member: Member) -> dict[str, NDArray[np.uint8]]:
    """The tags of the network's classes, by tile name."""
    return {name: tags[member.classes] for name, tags in table.by_name.items()}


def _validation(
    settings: DictConfig, reader: SceneReader, table: TagTable, member: Member
) -> TagDataset | None:
    """Fixed tiles, evenly spaced over the val split, or over the train split if there is no val split."""
    # A network of one class has the same strongest class at every pixel.
    with_mask = len(table.names[member.classes]) == len(table.names)
    tagged = table.validation()
    tiles = evenly_spaced(tagged.tiles, settings.validation_tiles)
    return TagDataset(reader, tiles, _tags(tagged, member), with_mask=with_mask) if tiles else None
