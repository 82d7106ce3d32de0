"""Tags -> the trained classifier, and its multi-scale CAMs of every training tile."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.classifying import initial_classifier, train_classifier
from ome.config.objects import hardware, warn_if_random
from ome.config.sections import averaged_cams, scene_reader
from ome.config.trainer import training_extras
from ome.data.cams import write_cams
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile, evenly_spaced
from ome.distributed.collectives import barrier, is_rank_zero, shard
from ome.distributed.processes import process_cores
from ome.files import write_csv
from ome.inference.classifier import CamPredictor, members, trained_classifier
from ome.inference.tag_probabilities import tag_probabilities
from ome.inference.threads import BYTES, tasks_in
from ome.inference.tile_scores import score_cams
from ome.networks.one_vs_all import OneVsAllNetwork
from ome.networks.seam import SeamNetwork
from ome.networks.weights import load_classifier
from ome.pipeline.layout import CAM_TITLES, TAG_SCORES, cam_path, read_tag_table
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Unread, Work
from ome.progress import meter
from ome.scoring.rows import write_rows
from ome.training.checkpoints import is_trained, save_network

SCORED: Final = 256
"""Largest number of tiles of `val`, evenly spaced, whose predicted tags are scored."""


def run(work: Work) -> dict[str, Any]:
    """Trains the classifier on the tiles that passed the filter, then exports CAMs of all tagged tiles."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index)
    config, names, bands = work.config, index.palette.names, len(reader.channels)
    checkpoint, export = work.settings.checkpoint, work.settings.export
    untrained = [
        member for member in members(config.classifier, work.folder, names) if not is_trained(member.folder)
    ]
    if untrained and checkpoint is None:
        warn_if_random(config.backbone.weights, "classifier", "backbone.weights")
    for member in untrained:
        if checkpoint is not None:
            _load_checkpoint(work, names, bands)
        else:
            train_classifier(work, member, reader, table)
    tagged, val = table.select("train", tagged=True), table.select("val", decided=True)
    if export.write or val.tiles:
        device = hardware(config).device()
        network = trained_classifier(config.backbone, config.classifier, work.folder, names, bands)
        if export.write:
            _export(work, CamPredictor(device, network, reader, tagged, export), tagged)
            barrier()
            write_rows(work.folder, score_cams(work.folder, reader, tagged, CAM_TITLES["cam"]))
        if val.tiles and is_rank_zero():
            _score_tags(work.folder, network, reader, val, device)
    training_tiles = 0 if checkpoint else len(table.select("train", kept=True).tiles)
    return {"training_tiles": training_tiles, "tiles": len(tagged.tiles)}


def _load_checkpoint(work: Work, names: Sequence[str], in_channels: int) -> None:
    """Loads the classifier of `stage.cam.checkpoint` and saves it as the trained network."""
    network = initial_classifier(work.config, len(names), in_channels, work.config.backbone.weights)
    load_classifier(network, work.settings.checkpoint, names)
    if is_rank_zero():
        save_network(network, work.folder)
    barrier()


def _export(work: Work, predictor: CamPredictor, tagged: TagTable) -> None:
    """Writes the missing CAMs among this process's shard of the tiles."""
    folder, tiles = work.folder, shard(tagged.tiles)
    missing = [tile for tile in tiles if not cam_path(folder, tile).exists()]
    writers = tasks_in(
        process_cores()
    )  # to compress the maps of a tile takes longer than a GPU computes them
    with (
        meter("multi-scale CAMs, tiles", len(tiles), len(tiles) - len(missing)) as progress,
        writers as submit,
    ):

        def write(tile: Tile, cams: NDArray[np.float32]) -> None:
            write_cams(cam_path(folder, tile), cams, tagged.by_name[tile.name])
            progress.advance()

        for tile, cams in zip(missing, predictor(missing), strict=True):
            submit(partial(write, tile, cams), 1 + cams.nbytes // BYTES)


def _score_tags(
    folder: Path,
    network: SeamNetwork | OneVsAllNetwork,
    reader: SceneReader,
    tagged: TagTable,
    device: torch.device,
) -> None:
    """Counts for each class the tiles of `val` with its tag, with its predicted tag, and with both."""
    tiles = evenly_spaced(tagged.tiles, SCORED)
    predicted = tag_probabilities(network, reader, tiles, device, "tags of val") > 0.5
    present = np.stack([tagged.by_name[tile.name] for tile in tiles]).astype(bool)
    counts = np.stack([present.sum(0), predicted.sum(0), (present & predicted).sum(0)], axis=1).tolist()
    rows = [[name, *row, len(tiles)] for name, row in zip(tagged.names, counts, strict=True)]
    write_csv(folder / TAG_SCORES, ("class", "shown", "given", "right", "tiles"), rows)


def _is_needed(config: DictConfig) -> bool:
    """False where all CAMs that later stages read come from the user's folder."""
    stages, refine = config.stage, config.stage.refine
    averaged = refine.rounds > 0 and averaged_cams(refine) is not None
    refined = stages.until in {"refine", "report"} and averaged
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
    enabled=_is_needed,
    trainings=dict.fromkeys((".", "*"), Unread(settings=("stage.export",))),
    version=5,
)
