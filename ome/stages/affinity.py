"""CAMs -> AffinityNet, and CAMs refined by a random walk along its affinities (optional)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.fitting import train
from ome.config.objects import augmentation, crf_of, crf_threads, hardware, optimization
from ome.config.sections import averaged_cams, scene_reader
from ome.config.trainer import training_extras
from ome.data.cams import write_cams
from ome.data.datamodules import TileDataModule
from ome.data.datasets import MaskDataset, certain
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile, crop_side
from ome.data.transforms import to_tensor
from ome.distributed.collectives import barrier, shard
from ome.geo.raster import read_png, write_palette_png
from ome.inference.class_maps import ClassMapsOf, LoadedTile, class_maps_from, process_tiles
from ome.inference.tile_scores import score_cams
from ome.networks.affinity import GRID_STRIDE, AffinityNetwork, pair_affinity, pair_indices
from ome.networks.backbones import build_backbone
from ome.networks.weights import load_weights
from ome.pipeline.layout import CAM_TITLES, NETWORK, cam_path, read_tag_table
from ome.pipeline.stage import Stage, Work
from ome.plugins import name_of
from ome.progress import track
from ome.pseudo.affinity_label import affinity_label
from ome.pseudo.random_walk import walk_cams
from ome.scoring.rows import write_rows
from ome.training.affinity import AffinityLearner
from ome.training.checkpoints import is_trained, load_network
from ome.training.hardware import channels_last


def run(work: Work) -> dict[str, Any]:
    """Labels the tagged training tiles, trains AffinityNet on them, and refines their CAMs."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    tagged = read_tag_table(work.inputs["labels"], index).select("train", tagged=True)
    maps_of = class_maps_from(hardware(work.config).device(), work.inputs["cam"], reader, tagged)
    network = _build(work.config, len(reader.channels))
    _label(work, reader, tagged, maps_of)
    barrier()
    if not is_trained(work.folder):
        # Ahn & Kwak and SEAM start from ImageNet weights; the classifier is already trained on these scenes.
        load_weights(network.backbone, work.inputs["cam"] / NETWORK)
        _train(work, network, reader, tagged)
    load_network(network, work.folder)
    _export(work, network, reader, tagged, maps_of)
    barrier()
    write_rows(work.folder, score_cams(work.folder, reader, tagged, CAM_TITLES["affinity"]))
    return {"tiles": len(tagged.tiles)}


def _build(config: DictConfig, in_channels: int) -> AffinityNetwork:
    """The network before training; its backbone is partly frozen unless `backbone.freeze=false`."""
    torch.manual_seed(config.seed)
    backbone = build_backbone(name_of(config.backbone), None, config.backbone.output_stride, in_channels)
    network = AffinityNetwork(backbone)
    return network.freeze() if config.backbone.freeze else network


def _label_path(folder: Path, tile: Tile) -> Path:
    return folder / "labels" / tile.scene / f"{tile.name}.png"


def _read_label(folder: Path, tile: Tile) -> NDArray[np.uint8]:
    return read_png(_label_path(folder, tile))


def _label(work: Work, reader: SceneReader, tagged: TagTable, maps_of: ClassMapsOf) -> None:
    """Writes the missing labels among this process's shard of the tiles."""
    crf_for, colours = crf_of(work.config), reader.index.palette.flat()
    alphas = [float(alpha) for alpha in work.settings.alphas]

    def label(group: Sequence[LoadedTile]) -> None:
        for tile, image, valid, stack in group:
            labels = affinity_label(crf_for(image), stack, tagged.by_name[tile.name], valid, alphas)
            write_palette_png(_label_path(work.folder, tile), labels, colours)

    process_tiles(
        "affinity labels, tiles",
        shard(tagged.tiles),
        partial(_label_path, work.folder),
        reader,
        maps_of,
        label,
        threads=crf_threads(work.config),
    )


def _train(work: Work, network: AffinityNetwork, reader: SceneReader, tagged: TagTable) -> None:
    config, settings = work.config, work.settings
    data = TileDataModule(
        MaskDataset(
            reader,
            tagged.tiles,
            partial(certain, partial(_read_label, work.folder)),
            augmentation(settings, crop_side(tagged.tiles, config.dataset.tile.size)),
            config.seed,
        ),
        batch=settings.batch,
        seed=config.seed,
        workers=hardware(config).loader_processes(),
        epochs=settings.epochs,
    )
    module = AffinityLearner(
        network,
        reader.index.palette.num_classes,
        total_steps=data.total_steps,
        radius=settings.radius,
        optimizer=optimization(settings, data.total_steps),
    )
    train(work, module, data, work.folder, "AffinityNet")


def _export(
    work: Work, network: AffinityNetwork, reader: SceneReader, tagged: TagTable, maps_of: ClassMapsOf
) -> None:
    """Writes the missing refined CAMs among this process's shard of the tiles."""
    folder, settings = work.folder, work.settings
    device = hardware(work.config).device()
    # With the memory layout of the training; with another a resumed run differs in the last digits.
    channels_last(network.to(device)).eval()
    missing = [tile for tile in shard(tagged.tiles) if not cam_path(folder, tile).exists()]
    for tile, cams in track(zip(missing, maps_of(missing), strict=True), "random walk, tiles", len(missing)):
        with torch.inference_mode():
            features = network(to_tensor(reader.image(tile))[None].to(device))
            affinity = pair_affinity(features, settings.radius)[0].cpu().numpy()
        pairs = pair_indices(features.shape[2:], settings.radius).numpy()
        tags, valid = tagged.by_name[tile.name], reader.valid(tile)
        walked = walk_cams(
            cams, tags, affinity, pairs, valid, stride=GRID_STRIDE, beta=settings.beta, steps=settings.steps
        )
        write_cams(cam_path(folder, tile), walked, tags)


def _is_needed(config: DictConfig) -> bool:
    """Whether a later stage reads the refined CAMs."""
    stages, refine = config.stage, config.stage.refine
    by_ablation = stages.until == "ablation" and bool(stages.ablation.random_walk)
    averaged = refine.rounds > 0 and averaged_cams(refine) == "affinity"
    return stages.pseudo.cams == "affinity" or by_ablation or averaged


STAGE = Stage(
    "affinity",
    run,
    requires=("prepare", "labels", "cam"),
    config_keys=(
        "seed",
        "backbone",
        "crf",
        "dataset.tile.size",
        "dataset.channels",
        "dataset.display",
        "trainer.accelerator",
        "trainer.precision",
    ),
    free_keys=("callbacks",),
    optional_config=training_extras,
    enabled=_is_needed,
    version=2,
)
