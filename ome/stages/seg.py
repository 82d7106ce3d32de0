"""Pseudo masks -> the segmenter trained on them, and the pixel-supervised upper bound."""

from dataclasses import replace
from functools import partial
from typing import Any

from omegaconf import DictConfig

from ome.config.evaluating import evaluate_segmenter
from ome.config.sections import scene_reader
from ome.config.segmenting import SEGMENTER_FREE_KEYS, SEGMENTER_KEYS, train_segmenter
from ome.config.trainer import training_extras
from ome.data.datasets import MaskOf, certain
from ome.data.scene_index import SceneIndex
from ome.errors import UserError
from ome.pipeline.layout import SEGMENTER_TITLES, read_pseudo_label, read_tag_table
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Unread, Work
from ome.progress import console
from ome.scoring.rows import Row, write_rows


def run(work: Work) -> dict[str, Any]:
    """Trains the chosen segmenters with the same settings, and scores each on the evaluation scenes."""
    targets = list(work.settings.targets)
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    tiles = read_tag_table(work.inputs["labels"], index).select("train", tagged=True).tiles
    masks: dict[str, MaskOf] = {"full": partial(certain, reader.mask)}
    if "pseudo" in work.inputs:
        masks["weak"] = partial(read_pseudo_label, work.inputs["pseudo"])
    rows: list[Row] = []
    for target in targets:
        usable = [tile for tile in tiles if target == "weak" or reader.has_mask(tile.scene)]
        if not usable:
            line = "the training scenes have no reference masks: nothing to train the upper bound on"
            if targets == [target]:
                raise UserError(f"{line}; use 'stage.seg.targets=[weak]'")
            console.print(f"[yellow]{line}[/]")
            continue
        folder, title = work.folder / target, SEGMENTER_TITLES[target]
        train_segmenter(work, folder, reader, usable, masks[target], title)
        part = f"{len(usable)} of {len(tiles)} training tiles, those with a reference mask"
        scored = evaluate_segmenter(work.config, folder, reader, title)
        rows += [replace(row, trained_on="" if len(usable) == len(tiles) else part) for row in scored]
    write_rows(work.folder, rows)
    return {"tiles": len(tiles), "miou": {row.name: row.scores.miou for row in rows}}


def _requires(config: DictConfig) -> tuple[str, ...]:
    return "prepare", "labels", *(("pseudo",) if "weak" in config.stage.targets else ())


STAGE = Stage(
    "seg",
    run,
    requires=_requires,
    config_keys=SEGMENTER_KEYS,
    free_keys=SEGMENTER_FREE_KEYS,
    external_files=lambda config: identity(config.segmenter.weights),
    trainings={
        "weak": Unread(settings=("stage.targets", "prediction")),
        "full": Unread(settings=("stage.targets", "prediction"), inputs=("pseudo",)),
    },
    optional_config=training_extras,
    version=2,
)
