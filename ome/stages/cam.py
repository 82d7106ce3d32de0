"""Tags -> the trained SEAM classifier and its multi-scale CAMs of every training tile."""

from typing import Any

import torch
from omegaconf import DictConfig

from ome.data.cams import cam_path, write_cams
from ome.data.datamodules import TileDataModule
from ome.data.datasets import TagDataset
from ome.data.scenes import SceneIndex, SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import evenly_spaced
from ome.networks.seam import SeamNetwork
from ome.progress import meter
from ome.stages.classifying import CamPredictor, build_classifier
from ome.stages.fitting import train
from ome.stages.labels import read_tag_table
from ome.stages.manifest import identity
from ome.stages.scored import score_cams, write_rows
from ome.stages.settings import augmentation, hardware, scene_reader
from ome.stages.stage import Stage, Work
from ome.training.distributed import barrier, is_leader, share
from ome.training.fit import is_trained, load_network
from ome.training.seam import SeamClassifier


def run(work: Work) -> dict[str, Any]:
    """Trains the classifier on the tiles that passed the filter, then exports CAMs of all tagged tiles."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index)
    network = _untrained(work.config, index.palette.num_classes, len(reader.channels))
    if not is_trained(work.folder):
        _train(work, network, reader, table)
    load_network(network, work.folder)
    tagged = table.select("train", tagged=True)
    if work.settings.export.write:
        _export(work, CamPredictor(work.config, network, reader, tagged, work.settings.export), tagged)
        barrier()
        if is_leader():
            write_rows(work.folder, score_cams(work.folder, reader, tagged, "CAM"))
    return {"training_tiles": len(table.select("train", kept=True).tiles), "tiles": len(tagged.tiles)}


def _untrained(config: DictConfig, num_classes: int, in_channels: int) -> SeamNetwork:
    """The network as it starts: pretrained parts are frozen, a network without weights is trained whole."""
    torch.manual_seed(config.seed)
    network = build_classifier(config, num_classes, in_channels, config.backbone.weights)
    freeze = config.backbone.freeze
    if freeze == "auto":
        freeze = config.backbone.weights is not None
    return network.freeze() if freeze else network


def _train(work: Work, network: SeamNetwork, reader: SceneReader, table: TagTable) -> None:
    """Trains on the tiles that passed the filter."""
    config, settings = work.config, work.settings
    kept = table.select("train", kept=True)
    augment = augmentation(settings, config.dataset.tile.size)
    data = TileDataModule(
        TagDataset(reader, kept.tiles, kept.by_name, augment, config.seed),
        _validation(settings, reader, table),
        batch=settings.batch,
        seed=config.seed,
        workers=hardware(config).loader_processes(),
        epochs=settings.epochs,
    )
    module = SeamClassifier(
        network,
        reader.index.palette.names,
        total_steps=data.total_steps,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        power=settings.power,
        er_weight=settings.er_weight,
        ecr_weight=settings.ecr_weight,
    )
    train(work, module, data, work.folder, "SEAM classifier")


def _validation(settings: DictConfig, reader: SceneReader, table: TagTable) -> TagDataset | None:
    """Fixed tiles, evenly spaced over the val split; over the train split where there is no other."""
    for split in ("val", "train"):
        tagged = table.select(split, tagged=True)
        if tagged.tiles and settings.validation_tiles:
            tiles = evenly_spaced(tagged.tiles, settings.validation_tiles)
            return TagDataset(reader, tiles, tagged.by_name, with_mask=True)
    return None


def _export(work: Work, predictor: CamPredictor, tagged: TagTable) -> None:
    """Writes the CAMs of this process's part of the tiles that have none yet."""
    folder = work.folder / "cams"
    mine = share(tagged.tiles)
    missing = [tile for tile in mine if not cam_path(folder, tile).exists()]
    with meter("multi-scale CAMs, tiles", len(mine), len(mine) - len(missing)) as shown:
        for tile, cams in zip(missing, predictor(missing), strict=True):
            write_cams(cam_path(folder, tile), cams, tagged.by_name[tile.name])
            shown.advance()


STAGE = Stage(
    "cam",
    run,
    needs=("prepare", "labels"),
    reads=("backbone", "dataset.tile.size", "dataset.channels", "trainer.accelerator", "trainer.precision"),
    sources=lambda config: identity(config.backbone.weights),
    version=2,
)
