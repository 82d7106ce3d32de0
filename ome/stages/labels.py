"""Reference masks or a table of tags -> tags of every tile, the filter, and co-occurrence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.markup import escape

from ome.config.sections import scene_reader
from ome.data.image_tags import read_tags
from ome.data.mask_tags import tags_from_masks
from ome.data.mask_values import contradictions
from ome.data.names import few_images
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tag_filter import Filtered
from ome.data.tag_summary import by_class, tag_summary
from ome.data.tags import TagTable
from ome.data.tile_choices import ENOUGH, Layout, TileChoice
from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import write_csv, write_json
from ome.pipeline.artifacts import plain
from ome.pipeline.layout import COOCCURRENCE, TAG_SUMMARY, TAGS
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.plots.figures import cooccurrence_figure, tag_counts_figure
from ome.plots.saving import save_png
from ome.progress import console, print_table
from ome.scoring.cooccurrence import cooccurrence, inseparable

LARGE = 2
"""A tagged image with a side of more than this many crops is reported as large."""


def run(work: Work) -> dict[str, Any]:
    """Writes `tags.csv`, the co-occurrence as table and heat map, and the counts of the filter."""
    if not is_rank_zero():
        return {}
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    dataset = work.config.dataset
    choices: list[TileChoice] = []
    if dataset.get("tags"):
        table = _tags_by_hand(Path(dataset.tags), index, reader)
        _warn(table, reader, dataset.tile.size)
        train = table.select("train")
        filtered = Filtered(train.kept, ~train.learnt, 0)
    else:
        layout, rule = Layout(dataset.tile.size, dataset.tile.stride), dataset.filter
        table, filtered, choices = tags_from_masks(
            reader,
            layout,
            rule.minimum,
            dict(rule.overrides or {}),
            drops=work.settings.get("drops", "tile"),  # not recorded then, and `reproduce` repeats the record
            cover=dataset.tile.cover,
        )
    train = table.select("train", kept=True)
    if not train.tiles:
        raise UserError(
            f"the filter {dataset.filter} left none of {len(table.tiles)} tiles to train on: "
            "lower dataset.filter.minimum or change dataset.tile.size"
        )
    for line in inseparable(table.names, train.tags, train.learnt):
        console.print(f"[yellow]{escape(line)}[/]")
    table.write(work.folder / TAGS)
    summary = tag_summary(table, filtered)
    write_json(work.folder / TAG_SUMMARY, summary)
    _write_cooccurrence(work.folder, table)
    counts = tag_counts_figure(table.names, summary["tiles_with_class"], summary["dropped_for_class"])
    save_png(work.folder / "tags.png", counts)
    _print_summary(summary)
    if choices:
        write_csv(work.folder / "choices.csv", TileChoice._fields, choices)
        _print_choices(choices, dataset)
    return summary


def _tags_by_hand(path: Path, index: SceneIndex, reader: SceneReader) -> TagTable:
    """Reads a table of tags, and leaves out tiles without a valid pixel.

    Raises:
        UserError: The table is wrong, or a tile is not inside a prepared scene.
    """
    table = read_tags(path, index)
    scenes = {scene.name: scene for scene in index.scenes}
    outside = [
        tile.name
        for tile in table.tiles
        if tile.scene not in scenes
        or tile.row + tile.height > scenes[tile.scene].height
        or tile.column + tile.width > scenes[tile.scene].width
    ]
    if outside:
        raise UserError(
            f"{len(outside)} tiles of dataset.tags lie outside the scenes, the first is {outside[0]}: "
            "correct scene, row, column, height and width"
        )
    strips = (tile.strips() for tile in table.tiles)  # a tagged image may be a whole scene
    valid = np.array([any(reader.valid(part).any() for part in parts) for parts in strips], dtype=bool)
    if not valid.all():
        first = table.tiles[int(valid.argmin())]
        console.print(
            f"[yellow]{(~valid).sum()} of {len(valid)} tagged tiles are skipped[/]: they have no valid "
            f"pixel, the first is {first.name}",
        )
    return table.take(valid)


def _warn(table: TagTable, reader: SceneReader, size: int) -> None:
    """Warns about overlapping splits, rare classes, tags that masks contradict, and large tiles."""
    if shared := table.shared_pixels():
        console.print(
            f"[bold yellow]{len(shared)} pairs of a training window and a window of val or test overlap[/], "
            f"the first are {' and '.join(tile.name for tile in shared[0])}: scores will be too high, "
            "because pixels that were trained on are scored; put overlapping windows into the same split",
        )
    train = table.select("train", kept=True)
    counts = by_class(table, (train.tags & train.learnt).sum(axis=0))
    for line in [*few_images(counts), *contradictions(table, reader)]:
        console.print(f"[yellow]{escape(line)}[/]")
    if large := sum(max(tile.height, tile.width) > LARGE * size for tile in train.tiles):
        console.print(
            f"[yellow]{large} of {len(train.tiles)} tagged images are more than {LARGE} x {size} pixels "
            f"along a side[/]: a training crop of {size} pixels may not contain the tagged classes; raise "
            "dataset.tile.size, cut the images, or tag windows of them",
        )


def _write_cooccurrence(folder: Path, table: TagTable) -> None:
    """Writes P(class of the column | class of the row) over the tiles that train the classifier."""
    train = table.select("train", kept=True)
    matrix = cooccurrence(train.tags, train.learnt)
    rows = ([name, *row] for name, row in zip(table.names, matrix.tolist(), strict=True))
    write_csv(folder / COOCCURRENCE, ["class", *table.names], rows)
    save_png(folder / "cooccurrence.png", cooccurrence_figure(matrix, table.names))


def _print_summary(summary: dict[str, Any]) -> None:
    parts = [summary[key] for key in ("tiles_with_class", "kept_tiles_with_class", "dropped_for_class")]
    print_table(
        f"{summary['kept_train_tiles']} of {summary['train_tiles']} training tiles kept",
        ("class", "tiles", "learnt from", "too small"),
        [(name, *(str(counts[name]) for counts in parts)) for name in parts[0]],
    )
    before, after = (
        "-" if summary[key] is None else f"{summary[key]:.3f}"
        for key in ("mean_cooccurrence", "kept_mean_cooccurrence")
    )
    console.print(
        f"mean co-occurrence {before} before the filter, {after} after; "
        f"{summary['empty_tiles']} tiles without any class",
    )


def _print_choices(choices: Sequence[TileChoice], dataset: DictConfig) -> None:
    configured = (dataset.tile.size, dataset.filter.minimum)
    rows = []
    for choice in choices:
        overlap = "-" if np.isnan(choice.cooccurrence) else f"{choice.cooccurrence:.3f}"
        counts = map(str, (choice.tiles, choice.kept, choice.classes))
        rows.append((str(choice.size), f"{choice.filter:g}", *counts, overlap))
    print_table(
        "tiles that other values of dataset.tile.size and dataset.filter.minimum would keep",
        ("size", "filter", "tiles", "kept", f"classes in {ENOUGH} kept", "co-occurrence"),
        rows,
        texts=0,
        bold=[place for place, one in enumerate(choices) if (one.size, one.filter) == configured],
    )
    console.print(
        "look for many kept tiles, all classes and little co-occurrence; dataset.filter.overrides are scaled "
        "with the filter"
    )


def _settings_that_matter(config: DictConfig) -> dict[str, Any]:
    """Leaves out `drops` with a table of tags, where it changes nothing; results record no `tile` either."""
    settings = plain(config, "stage")
    if config.dataset.get("tags") or settings.get("drops") == "tile":
        settings.pop("drops", None)
    return {"stage": settings}


STAGE = Stage(
    "labels",
    run,
    requires=("prepare",),
    config_keys=("dataset.tile", "dataset.filter", "dataset.tags", "dataset.channels"),
    free_keys=("dataset.display",),
    external_files=lambda config: identity(config.dataset.get("tags")),
    optional_config=_settings_that_matter,
    version=2,
)
