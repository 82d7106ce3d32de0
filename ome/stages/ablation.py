"""CAMs -> a table of pseudo-mask variants: argmax, background, CRF, and the certain pixels of its mask."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.objects import crf_of, crf_threads, hardware
from ome.config.sections import scene_reader
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, evenly_spaced
from ome.distributed.collectives import all_reduce_sum, is_rank_zero, shard
from ome.errors import UserError
from ome.files import write_csv
from ome.inference.class_maps import ClassMapsOf, class_maps_from
from ome.inference.threads import IN_MEMORY
from ome.inference.tile_scores import TileScorer
from ome.pipeline.layout import CAM_TITLES, read_tag_table
from ome.pipeline.stage import Stage, Work
from ome.plots.ablation_figures import bars_figure, calibration_figure, thresholds_figure
from ome.plots.saving import save_figure
from ome.progress import console, meter, print_table
from ome.pseudo.variants import CRITERIA, Variants, mask_variants, variant_names
from ome.scoring.calibration import LEVELS, calibration_table, error_counts
from ome.scoring.rows import Row, variant_table, write_rows
from ome.scoring.tables import MEANS, percent
from ome.scoring.thresholds import THRESHOLDS, ThresholdCurves, threshold_counts, threshold_table


def run(work: Work) -> dict[str, Any]:
    """Scores every variant on the same tiles, the CAMs at each threshold, and the masks at each weight."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index).select("train", tagged=True)
    tiles = evenly_spaced([tile for tile in table.tiles if reader.has_mask(tile.scene)], work.settings.tiles)
    if not tiles:
        raise UserError(
            "stage=ablation scores training tiles with a reference mask, and there are none: prepare "
            "scenes with reference masks"
        )
    rows: list[Row] = []
    best: list[list[str]] = []
    for stage, title in CAM_TITLES.items():
        if stage not in work.inputs:
            continue
        maps_of = class_maps_from(hardware(work.config).device(), work.inputs[stage], reader, table)
        sums = Sums(reader, variant_names(title, work.settings.backgrounds, work.settings.weights))
        for tile, maps, variants in _variants(work.config, reader, shard(tiles), maps_of, title):
            sums.add(tile, maps, variants)
        sums.gather()
        rows += sums.rows(f"{len(tiles)} train tiles")
        curves = sums.curves()
        best += [[stage, name, f"{at:.2f}", percent(iou)] for name, (at, iou) in curves.best().items()]
        if is_rank_zero():
            _write_details(work.folder, stage, curves, sums.errors)
    if is_rank_zero():
        write_csv(work.folder / "best_thresholds.csv", ["stage", "class", "threshold", "IoU"], best)
        write_rows(work.folder, rows)
        _write_table(work.folder, rows, best)
    return {"tiles": len(tiles), "rows": len(rows)}


class Sums:
    """Counts over tiles for the maps of one stage.

    Args:
        reader: Reads the reference masks.
        names: Names of the variants, the same in every process and in the same order.
    """

    def __init__(self, reader: SceneReader, names: Sequence[str]) -> None:
        self._reader = reader
        self._scorers = {name: TileScorer(reader) for name in names}
        self._reached = np.zeros((reader.index.palette.num_classes, 2, len(THRESHOLDS) + 1), dtype=np.int64)
        self.errors = {name: np.zeros((LEVELS, 2), dtype=np.int64) for name in CRITERIA}
        """Sums of `error_counts` by criterion."""

    def add(self, tile: Tile, maps: NDArray[np.float32], variants: Variants) -> None:
        """Counts a tile that has a reference mask: its class maps (C, H, W) and their variants."""
        reference = self._reader.mask(tile)
        self._reached += threshold_counts(maps, reference)
        for name, mask in variants.masks.items():
            self._scorers[name].compare(mask, reference)
        for name, levels in variants.levels.items():
            self.errors[name] += error_counts(levels, variants.crf, reference)

    def gather(self) -> None:
        """Adds the counts of the other processes; a collective call, once per process."""
        self._reached = all_reduce_sum(self._reached)
        self._scorers = {name: scorer.gather() for name, scorer in self._scorers.items()}
        self.errors = {name: all_reduce_sum(counts) for name, counts in self.errors.items()}

    def curves(self) -> ThresholdCurves:
        """The scores of each class over the thresholds of its map."""
        return ThresholdCurves(self._reached, self._reader.index.palette.names)

    def rows(self, scored_on: str) -> list[Row]:
        """One row per variant."""
        return [row for name, scorer in self._scorers.items() for row in scorer.rows(name, scored_on)]


def _variants(
    config: DictConfig, reader: SceneReader, tiles: Sequence[Tile], maps_of: ClassMapsOf, title: str
) -> Iterator[tuple[Tile, NDArray[np.float32], Variants]]:
    """Yields the tiles with their maps and variants; several threads compute the variants."""
    settings, crf_for = config.stage, crf_of(config)
    scales, backgrounds, weights = (
        list(settings[key]) for key in ("response_scales", "backgrounds", "weights")
    )

    def variants_of(
        image: NDArray[np.uint8], maps: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> Variants:
        return mask_variants(crf_for(image), maps, title, scales, backgrounds, weights, valid)

    with (
        meter(f"variants of the {title} masks, tiles", len(tiles)) as progress,
        ThreadPoolExecutor(crf_threads(config)) as pool,
    ):
        for start in range(0, len(tiles), IN_MEMORY):
            chunk = tiles[start : start + IN_MEMORY]
            stacks = list(maps_of(chunk))
            images, valid = [reader.display(tile) for tile in chunk], [reader.valid(tile) for tile in chunk]
            made = pool.map(variants_of, images, stacks, valid)
            for tile, maps, variants in zip(chunk, stacks, made, strict=True):
                yield tile, maps, variants
                progress.advance()


def _write_details(
    folder: Path, stage: str, curves: ThresholdCurves, errors: Mapping[str, NDArray[np.int64]]
) -> None:
    write_csv(folder / f"thresholds_{stage}.csv", *threshold_table(curves))
    save_figure(folder / f"thresholds_{stage}.png", thresholds_figure(curves))
    write_csv(folder / f"calibration_{stage}.csv", *calibration_table(errors))
    save_figure(folder / f"calibration_{stage}.png", calibration_figure(errors))


def _write_table(folder: Path, rows: Sequence[Row], best: Sequence[Sequence[str]]) -> None:
    """Writes the table of the variants and its chart; prints the means and the best thresholds."""
    header, body = variant_table(rows)
    write_csv(folder / "ablation.csv", header, body)
    partial = [row.name for row in rows if row.fraction < 1]
    save_figure(folder / "ablation.png", bars_figure({row.name: row.scores.miou for row in rows}, partial))
    shown, *lines = ([*cells[: len(MEANS) + 1], cells[-1]] for cells in (header, *body))
    print_table(f"Pseudo-mask variants on {rows[0].scored_on}, percent", shown, lines)
    for stage, name, threshold, iou in best:
        console.print(f"{stage}: best threshold of {name} {threshold}, IoU {iou} %")


def _requires(config: DictConfig) -> tuple[str, ...]:
    return "prepare", "labels", "cam", *(["affinity"] if config.stage.random_walk else [])


STAGE = Stage(
    "ablation",
    run,
    requires=_requires,
    optional_inputs=("affinity",),
    config_keys=("crf", "dataset.channels", "dataset.display", "trainer.accelerator"),
    free_keys=("trainer.precision",),
    enabled=lambda _: False,
    version=4,
)
