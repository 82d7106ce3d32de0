"""Rounds of new pseudo masks from the segmenter's predictions, and of a segmenter trained on them."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.evaluating import evaluate_segmenter
from ome.config.objects import hardware, labeller_of
from ome.config.sections import averaged_cams, scene_reader
from ome.config.segmenting import (
    SEGMENTER_FREE_KEYS,
    SEGMENTER_KEYS,
    card_of,
    predictor_of,
    train_segmenter,
)
from ome.config.trainer import training_extras
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.distributed.collectives import all_reduce_sum, barrier, shard
from ome.distributed.processes import process_cores
from ome.geo.raster import read_png
from ome.ignore import IGNORE
from ome.inference.class_maps import ClassMapsOf, LoadedTile, class_maps_from, process_tiles
from ome.inference.outputs import on_host
from ome.inference.pseudo_labels import mask_statistics, score_masks, write_label, write_pseudo_labels
from ome.pipeline.layout import (
    PSEUDO_MASK,
    SEGMENTER_TITLES,
    in_round,
    mask_path,
    read_pseudo_label,
    read_tag_table,
    round_folder,
)
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.progress import console
from ome.pseudo.fusion import normalise_cam
from ome.scoring.rows import Row, write_rows


def run(work: Work) -> dict[str, Any]:
    """Runs the rounds until their number is reached or the pseudo masks hardly change any more."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index).select("train", tagged=True)
    network, masks = work.inputs["seg"] / "weak", work.inputs["pseudo"]
    rows: list[Row] = []
    counts: dict[str, Any] = {"tiles": len(table.tiles)}
    for number in range(1, work.settings.rounds + 1):
        folder = round_folder(work.folder, number)
        _label(work, folder, network, masks, reader, table)
        unchanged = agreement(masks, folder, table.tiles)
        if unchanged == 1:
            console.print(f"round {number} changes no pseudo mask: no prediction is sure enough of others")
        title = in_round(SEGMENTER_TITLES["weak"], number)
        train_segmenter(work, folder, reader, table.tiles, partial(read_pseudo_label, folder), title)
        rows += score_masks(folder, "masks", reader, table.tiles, in_round(PSEUDO_MASK, number))
        rows += evaluate_segmenter(work.config, folder, reader, title)
        statistics = mask_statistics(folder, table.tiles, table.names)
        counts[folder.name] = {"unchanged_pixels": unchanged, **statistics}
        network, masks = folder, folder
        if unchanged >= work.settings.settled:
            console.print(
                f"stopping after round {number}: {unchanged:.1%} of the pseudo masks' pixels unchanged"
            )
            break
    write_rows(work.folder, rows)
    return counts


def _label(
    work: Work, folder: Path, network: Path, masks: Path, reader: SceneReader, table: TagTable
) -> None:
    """Writes the pseudo masks of a round, from those before it and what a network predicts in the tiles."""
    settings = work.settings
    card = card_of(work.config, reader)
    predict = predictor_of(work.config, network, card, settings.scales, flip=settings.flip)

    def predicted(tiles: Sequence[Tile]) -> Iterator[NDArray[np.float32]]:
        for tile in tiles:
            probabilities = on_host(predict(reader.image(tile)[None])[0], f"the predictions of {tile.name}")
            yield among_tags(probabilities, table.by_name[tile.name])

    if settings.confident is not None:
        process_tiles(
            "confident predictions, tiles",
            shard(table.tiles),
            lambda tile: mask_path(folder, "masks", tile),
            reader,
            predicted,
            partial(_correct, folder, masks, reader.index.palette.flat(), settings.confident),
            threads=1,
        )
        barrier()
        return
    maps_of: ClassMapsOf = predicted
    if settings.cams is not None:
        cams_of = class_maps_from(hardware(work.config).device(), work.inputs[settings.cams], reader, table)
        maps_of = _averaged(predicted, cams_of, table, reader)

    write_pseudo_labels(
        folder,
        reader,
        table.tiles,
        maps_of,
        labeller_of(work.config),
        threads=work.settings.threads or process_cores(),
    )
    barrier()


def _correct(
    folder: Path, before: Path, colours: Sequence[int], least: float, group: Sequence[LoadedTile]
) -> None:
    """Writes pseudo masks in which confident predictions replace the classes of those before; weights stay.

    A segmenter predicts a class everywhere: background, undecided pixels and those without data keep 255.
    """
    for tile, _, _, probabilities in group:
        mask, weight = read_pseudo_label(before, tile)
        predicted = probabilities.argmax(axis=0).astype(np.uint8)
        predicted = np.where(mask == IGNORE, mask, predicted)
        replaced = probabilities.max(axis=0) >= least
        write_label(folder, tile, colours, np.where(replaced, predicted, mask), weight, predicted)


def _averaged(
    predicted: ClassMapsOf, cams_of: ClassMapsOf, table: TagTable, reader: SceneReader
) -> ClassMapsOf:
    """The mean of the CAMs as they are, and of the predictions with each class of a tile stretched to 0..1.

    CAMs are stretched already, and lowered where their classes compete. Pseudo masks from predictions alone
    lose the classes that the network rarely predicts.
    """

    def averaged(tiles: Sequence[Tile]) -> Iterator[NDArray[np.float32]]:
        for tile, prediction, cams in zip(tiles, predicted(tiles), cams_of(tiles), strict=True):
            tags, valid = (torch.from_numpy(of) for of in (table.by_name[tile.name], reader.valid(tile)))
            stretched = normalise_cam(torch.from_numpy(prediction), tags, valid).numpy()
            yield (stretched + cams) / np.float32(2)

    return averaged


def among_tags(probabilities: NDArray[np.float32], tags: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Class probabilities on condition that a pixel is of a tagged class.

    Args:
        probabilities: (C, H, W) float32, summing to 1 over the classes.
        tags: (C,) of 0 and 1.

    Returns:
        (C, H, W) float32: 0 for classes without a tag, the others scaled to sum to 1.
    """
    # If a softmax rounds to 0 for every tagged class, these get equal probabilities.
    tagged = np.maximum(probabilities, np.finfo(np.float32).tiny) * tags[:, None, None].astype(np.float32)
    conditional: NDArray[np.float32] = tagged / tagged.sum(axis=0, keepdims=True)
    return conditional


def agreement(before: Path, after: Path, tiles: Sequence[Tile]) -> float:
    """Fraction of pixels with a class in either of two folders whose pseudo mask is the same in both.

    Over the tiles of all processes.
    """
    counts = np.zeros(2, dtype=np.int64)
    for tile in shard(tiles):
        first, second = (read_png(mask_path(folder, "masks", tile)) for folder in (before, after))
        labelled = (first != IGNORE) | (second != IGNORE)
        counts += [((first == second) & labelled).sum(), labelled.sum()]
    same, total = all_reduce_sum(counts).tolist()
    return float(same / max(total, 1))


def _requires(config: DictConfig) -> tuple[str, ...]:
    cams = averaged_cams(config.stage)
    return "prepare", "labels", "pseudo", "seg", *(() if cams is None else (cams,))


STAGE = Stage(
    "refine",
    run,
    requires=_requires,
    config_keys=(*SEGMENTER_KEYS, "crf", "dataset.display", "quirks.background_read_first"),
    free_keys=SEGMENTER_FREE_KEYS,
    external_files=lambda config: identity(config.segmenter.weights),
    optional_config=training_extras,
    enabled=lambda config: config.stage.refine.rounds > 0,
)
