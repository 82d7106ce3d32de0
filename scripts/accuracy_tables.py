"""The tables of `accuracy.py`: scores of finished runs over seeds, and errors of pseudo masks by weight."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.pipeline.layout import SEGMENTER_TITLES, TRAIN_TILES, read_pseudo_label, read_tag_table
from ome.pipeline.manifest import Manifest
from ome.plots.ablation_figures import BARS
from ome.scoring.calibration import LEVELS, error_counts, merged_levels
from ome.scoring.rows import Row, read_rows
from ome.scoring.spread import spread
from ome.scoring.tables import markdown_lines, miou_ratio

QUICK_STAGES = ("prepare", "labels", "cam", "pseudo")
WEAK, FULL = SEGMENTER_TITLES["weak"], SEGMENTER_TITLES["full"]


class Finished(NamedTuple):
    """The results of a run.

    Attributes:
        rows: Rows of scores by name.
        seconds: Time of all stages.
        errors: Right and wrong pixels of the pseudo masks by weight, see `error_counts`.
    """

    rows: dict[str, Row]
    seconds: float
    errors: NDArray[np.int64]

    def reached(self, title: str) -> float:
        """The mIoU of a row as a percentage of that of the pixel-supervised segmenter."""
        return miou_ratio({name: row.scores for name, row in self.rows.items()}, title, FULL)


def finished(folder: Path, scenes: Path, *, quick: bool = False) -> Finished:
    """Reads the scores and times of a run whose last command was one of `command`.

    Its report has read the results that belong to the settings of that command, not others in the folder.
    """
    report = None if quick else Manifest.read(folder / "report")
    stages = ("cam", "pseudo") if report is None else ("report",)
    rows = {row.name: row for stage in stages for row in read_rows(folder / stage)}
    timed = QUICK_STAGES if report is None else (*report.inputs, "report")
    places = [scenes if stage == "prepare" else folder / stage for stage in timed]
    manifests = [manifest for place in places if (manifest := Manifest.read(place)) is not None]
    return Finished(rows, sum(manifest.seconds for manifest in manifests), errors_of(folder, scenes))


def errors_of(folder: Path, scenes: Path) -> NDArray[np.int64]:
    """Counts the right and wrong pixels of a run's pseudo masks by weight."""
    index = SceneIndex.read(scenes)
    reader = SceneReader(index)
    errors = np.zeros((LEVELS, 2), dtype=np.int64)
    for tile in read_tag_table(folder / "labels", index).select("train", tagged=True).tiles:
        mask, weight = read_pseudo_label(folder / "pseudo", tile)
        errors += error_counts(weight, mask, reader.mask(tile))
    return errors


def table_of(name: str, runs: Sequence[Finished]) -> str:
    """The table of a set: all scores, and the ratio of each segmenter to the pixel-supervised one."""
    longest = sorted(runs, key=lambda run: -len(run.rows))
    titles = dict.fromkeys(title for run in longest for title in run.rows)
    classes = next(iter(runs[0].rows.values())).scores.names
    lines = []
    for title in titles:
        having = [run for run in runs if title in run.rows]  # a seed may settle after fewer rounds
        rows = [run.rows[title] for run in having]
        is_compared = rows[0].scored_on != TRAIN_TILES and all(FULL in run.rows for run in having)
        ratio = spread([run.reached(title) for run in having]) if is_compared else ""
        of_classes = zip(*(row.scores.iou.tolist() for row in rows), strict=True)
        values = (spread([row.scores.miou for row in rows]), ratio, *map(spread, of_classes))
        where = replace(rows[0], fraction=statistics.mean(row.fraction for row in rows)).where
        where += "" if len(having) == len(runs) else f", {len(having)} of {len(runs)} seeds"
        lines.append([f"{title} ({where})", *map(str, values)])
    table = markdown_lines([name, "mIoU", "of pixel labels", *classes], lines, texts=1)
    minutes = statistics.mean([run.seconds for run in runs]) / 60
    seeds = "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
    notes = dict.fromkeys(f"\n{row.note}." for run in runs for row in run.rows.values() if row.note)
    return f"{table}\n{seeds}, {minutes:.0f} minutes each.{''.join(notes)}"


def mean_of_sets(runs: Mapping[str, Sequence[Finished]]) -> list[str]:
    """A line with the mean over the sets of the weak segmenter's ratio; none if a set lacks a segmenter."""
    if not all({WEAK, FULL} <= run.rows.keys() for of_set in runs.values() for run in of_set):
        return []
    ratios = [statistics.mean(run.reached(WEAK) for run in of_set) for of_set in runs.values()]
    return [f"{WEAK} / {FULL}, mean of {', '.join(runs)}: {100 * statistics.mean(ratios):.1f} %"]


def weight_table(name: str, errors: NDArray[np.int64]) -> str:
    """The table of the fraction of pixels and their error rate for each range of weights."""
    total = errors.sum()
    lines = [
        (level, f"{100 * (right + wrong) / total:.1f} %", f"{100 * wrong / (right + wrong):.1f} %")
        for level, (right, wrong) in merged_levels(errors, BARS).items()
    ]
    return markdown_lines((f"{name}, weight", "pixels", "wrong"), lines, texts=1)
