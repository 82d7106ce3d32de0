"""Reference masks, or a table of tags -> the tags of every tile, the filter, and co-occurrence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from ome.config.selected import scene_reader
from ome.data.image_tags import read_tags
from ome.data.mask_values import contradictions
from ome.data.names import few_images
from ome.data.scene_index import Scene, SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import Filtered, TagTable, filter_tiles, minimum_coverage
from ome.data.tile_choices import (
    ENOUGH,
    Layout,
    TileChoice,
    coverage_of_tiles,
    layouts,
    tile_choices,
)
from ome.data.tiles import Tile, tile_scene
from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import write_csv, write_json
from ome.pipeline.layout import TAGS
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.plots.figures import save_cooccurrence, save_tag_counts
from ome.progress import console, track
from ome.scoring.cooccurrence import cooccurrence, mean_cooccurrence

LARGE = 2
"""Sides of a crop from which on a tagged image is pointed out as large."""


def run(work: Work) -> dict[str, Any]:
    """Writes `tags.csv`, the co-occurrence as table and heat map, and what the filter dropped."""
    if not is_rank_zero():
        return {}
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    choices: list[TileChoice] = []
    tags_path = work.config.dataset.get("tags")
    if tags_path:
        table = read_tags(Path(tags_path), index)
        _check_windows(table, index)
        table = _measured(table, reader)
        if shared := table.shared_pixels():
            console.print(
                f"[bold yellow]{len(shared)} pairs of a training window and one of val or test overlap[/], "
                f"the first are {' and '.join(tile.name for tile in shared[0])}: what was trained on is "
                "scored, and scores will be too good; give windows that overlap one split",
                highlight=False,
            )
        kept = table.select("train", kept=True).tags.sum(axis=0)
        for line in [*few_images(_by_class(table, kept)), *contradictions(table, reader)]:
            console.print(f"[yellow]{escape(line)}[/]", highlight=False)
        _warn_of_large(table.select("train", kept=True).tiles, work.config.dataset.tile.size)
        dropped = Filtered(table.kept, np.zeros(len(table.names), dtype=np.int64), 0)
    else:
        table, dropped, choices = _from_masks(work.config, index, reader)
    if not table.select("train", kept=True).tiles:
        raise UserError(
            f"the filter {work.config.dataset.filter} left none of {len(table.tiles)} tiles to train on: "
            "lower dataset.filter.minimum or change dataset.tile.size"
        )
    table.write(work.folder / TAGS)
    summary = _summary(table, dropped)
    write_json(work.folder / "labels.json", summary)
    _write_cooccurrence(work.folder, table)
    save_tag_counts(
        work.folder / "tags.png", table.names, summary["tiles_with_class"], summary["dropped_for_class"]
    )
    _show(summary)
    if choices:
        write_csv(work.folder / "choices.csv", TileChoice._fields, choices)
        _show_choices(choices, work.config.dataset)
    return summary


def _from_masks(
    config: DictConfig, index: SceneIndex, reader: SceneReader
) -> tuple[TagTable, Filtered, list[TileChoice]]:
    """Lays tiles over the train and val scenes and looks which classes each contains.

    Beside the table, what the filter did to the tiles of train scenes, and what other sizes of tiles and
    other filters would leave of these.
    """
    names = index.palette.names
    scenes = [*index.split("train"), *index.split("val")]
    without = [scene.name for scene in scenes if scene.mask is None]
    if without:
        raise UserError(
            f"{len(without)} scenes have no reference mask ({', '.join(without[:5])}): "
            "give tags by dataset.tags=/path/to/tags.csv"
        )
    tiles: list[Tile] = []
    shape, side = config.dataset.tile, max(max(scene.height, scene.width) for scene in scenes)
    own = Layout(shape.size, shape.stride)
    covered: dict[Layout, list[NDArray[np.float64]]]
    covered = {layout: [] for layout in layouts(own, side)}
    for scene in track(scenes, "tags of scenes", len(scenes)):
        tiles += _tiles_of(scene, config)
        mask = reader.mask(Tile(scene.name, 0, 0, scene.height, scene.width))
        for layout in covered if scene.split == "train" else (own,):
            covered[layout].append(coverage_of_tiles(mask, layout, len(names), cover=shape.cover))
    shares = np.concatenate(covered[own])
    training = {layout: parts[: len(index.split("train"))] for layout, parts in covered.items()}
    rule = config.dataset.filter
    minimum = minimum_coverage(names, rule.minimum, dict(rule.overrides or {}))
    filtered = filter_tiles(shares, minimum)
    split_of = {scene.name: scene.split for scene in scenes}
    splits = tuple(split_of[tile.scene] for tile in tiles)
    table = TagTable(names, tuple(tiles), (shares > 0).astype(np.uint8), splits, filtered.kept)
    of_training = filter_tiles(shares[np.array(splits) == "train"], minimum)
    return table, of_training, tile_choices(training, minimum, rule.minimum)


def _tiles_of(scene: Scene, config: DictConfig) -> list[Tile]:
    tile = config.dataset.tile
    return tile_scene(scene.name, scene.height, scene.width, tile.size, tile.stride, cover=tile.cover)


def _measured(table: TagTable, reader: SceneReader) -> TagTable:
    """Drops tiles without a valid pixel."""
    measured = np.array([reader.valid(tile).any() for tile in table.tiles], dtype=bool)
    if not measured.all():
        first = table.tiles[int(measured.argmin())]
        console.print(
            f"[yellow]{(~measured).sum()} of {len(measured)} tagged tiles are left out[/]: nothing was "
            f"measured there, the first is {first.name}",
            highlight=False,
        )
    return table.take(measured)


def _check_windows(table: TagTable, index: SceneIndex) -> None:
    """Refuses tags of tiles that are not inside a prepared scene."""
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


def _warn_of_large(tiles: Sequence[Tile], size: int) -> None:
    """Points out tiles of which a training crop shows so little that their tags may not be in it."""
    large = sum(max(tile.height, tile.width) > LARGE * size for tile in tiles)
    if large:
        console.print(
            f"[yellow]{large} of {len(tiles)} tagged images are more than {LARGE} x {size} pixels along a "
            f"side[/]: training takes crops of {size} pixels, which may not show what the tags name; raise "
            "dataset.tile.size, cut the images, or tag windows of them",
            highlight=False,
        )


def _summary(table: TagTable, filtered: Filtered) -> dict[str, Any]:
    """Counts; those by class and the co-occurrence are of the training tiles, as is `filtered`."""
    train = table.select("train")
    return {
        "tiles": len(table.tiles),
        "train_tiles": len(train.tiles),
        "kept_train_tiles": int(train.kept.sum()),
        "empty_tiles": filtered.empty,
        "tiles_with_class": _by_class(table, train.tags.sum(axis=0)),
        "kept_tiles_with_class": _by_class(table, train.tags[train.kept].sum(axis=0)),
        "dropped_for_class": _by_class(table, filtered.dropped),
        "mean_cooccurrence": _overlap(train.tags),
        "kept_mean_cooccurrence": _overlap(train.tags[train.kept]),
    }


def _overlap(tags: NDArray[np.uint8]) -> float | None:
    """Mean co-occurrence of the classes; None where there is no pair of them."""
    mean = mean_cooccurrence(cooccurrence(tags))
    return None if np.isnan(mean) else mean


def _by_class(table: TagTable, counts: NDArray[Any]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(table.names, counts, strict=True)}


def _write_cooccurrence(folder: Path, table: TagTable) -> None:
    """Writes P(column's class | row's class) over the tiles that train the classifier."""
    matrix = cooccurrence(table.select("train", kept=True).tags)
    rows = ([name, *row] for name, row in zip(table.names, matrix.tolist(), strict=True))
    write_csv(folder / "cooccurrence.csv", ["class", *table.names], rows)
    save_cooccurrence(folder / "cooccurrence.png", matrix, table.names)


def _show(summary: dict[str, Any]) -> None:
    shown = Table(title=f"{summary['kept_train_tiles']} of {summary['train_tiles']} training tiles kept")
    for column in ("class", "tiles", "kept", "dropped as too small"):
        shown.add_column(column, justify="left" if column == "class" else "right")
    for name, count in summary["tiles_with_class"].items():
        kept, dropped = summary["kept_tiles_with_class"][name], summary["dropped_for_class"][name]
        shown.add_row(name, str(count), str(kept), str(dropped))
    console.print(shown)
    before, after = (
        "-" if summary[key] is None else f"{summary[key]:.3f}"
        for key in ("mean_cooccurrence", "kept_mean_cooccurrence")
    )
    console.print(
        f"mean co-occurrence {before} before the filter, {after} after; "
        f"{summary['empty_tiles']} tiles without any class",
        highlight=False,
    )


def _show_choices(choices: Sequence[TileChoice], dataset: DictConfig) -> None:
    shown = Table(title="what dataset.tile.size and dataset.filter.minimum would leave")
    for column in ("size", "filter", "tiles", "kept", f"classes in {ENOUGH} kept", "co-occurrence"):
        shown.add_column(column, justify="right")
    for choice in choices:
        chosen = (choice.size, choice.filter) == (dataset.tile.size, dataset.filter.minimum)
        counts = map(str, (choice.tiles, choice.kept, choice.classes))
        overlap = "-" if np.isnan(choice.cooccurrence) else f"{choice.cooccurrence:.3f}"
        row = (str(choice.size), f"{choice.filter:g}", *counts, overlap)
        shown.add_row(*row, style="bold" if chosen else None)
    console.print(shown)
    console.print("more kept tiles, all classes and little co-occurrence are best; overrides scale along")


STAGE = Stage(
    "labels",
    run,
    requires=("prepare",),
    config_keys=("dataset.tile", "dataset.filter", "dataset.tags", "dataset.channels"),
    free_keys=("dataset.display",),
    external_files=lambda config: identity(config.dataset.get("tags")),
    version=2,
)
