"""Finished runs -> one table of their scores, with mean and standard deviation of repetitions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import read_csv, write_csv, write_text
from ome.pipeline.artifacts import inherited_runs, listed, matching_folders, results_of
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.plots.figures import save_figure, spreads_figure
from ome.progress import console, print_table
from ome.report.scored_runs import ScoredResult, scored_results, with_same_classes
from ome.scoring.pairs import paired_difference
from ome.scoring.rows import NAME as SCORES
from ome.scoring.rows import read_rows
from ome.scoring.spread import Spread, keys_under, labels, spread
from ome.scoring.tables import latex_lines, markdown_lines

HEADER = ("scored", "on", "settings", "runs", "pixels", "mIoU", "mF1", "OA")
PAIRS_HEADER = ("scored", "on", "settings", "compared with", "seeds", "mIoU more", "from", "to", "p")

_SCORED = ("cam", "affinity", "pseudo", "ablation", "seg", "refine")
_WHENCE = (
    f"the stages {', '.join(_SCORED[:-1])} and {_SCORED[-1]} compute them, and only with reference masks "
    "(dataset.masks for images of your own). Without masks, compare how many tags of val images each run's "
    "classifier gets right: the table of predicted tags in its report"
)


class _Group(NamedTuple):
    """What repetitions have in common."""

    name: str
    scored_on: str
    settings: str


def run(work: Work) -> dict[str, Any]:
    """Collects the rows of all runs: `comparison.csv`, `.md`, `.tex`, `.png`, `.pdf`, and `pairs.csv`."""
    if not is_rank_zero():
        return {}
    folders = find_runs(work.config)
    results = list(scored_results(folders, inherited_runs(work.config)))
    if not results:
        raise UserError(
            f"none of the {len(folders)} runs of stage.compare.runs={work.settings.runs} has scores: "
            f"{_WHENCE}"
        )
    results = with_same_classes(results)
    groups = _grouped(results, _naming_settings(work.settings.settings, results))
    rows = [_cells(group, repetitions) for group, repetitions in groups.items()]
    header = [*HEADER, *results[0].row.scores.names]
    write_csv(work.folder / "comparison.csv", header, rows)
    pairs = list(_pairs(groups))
    write_csv(work.folder / "pairs.csv", PAIRS_HEADER, pairs)
    texts = {
        name: lines(header, rows) + (f"\n{lines(PAIRS_HEADER, pairs)}" if pairs else "")
        for name, lines in (("markdown", markdown_lines), ("latex", latex_lines))
    }
    write_text(work.folder / "comparison.md", texts["markdown"])
    write_text(work.folder / "comparison.tex", texts["latex"])
    bars = {
        ", ".join(filter(None, (group.name, group.settings))): _spread(repetitions, "miou")
        for group, repetitions in groups.items()
    }
    save_figure(work.folder / "comparison.png", spreads_figure(bars, "mIoU, %"))
    return {"runs": len(folders), "rows": len(rows)}


def show(config: DictConfig, folder: Path) -> None:
    """Prints a finished comparison in the configured format, and the runs that have no scores."""
    if not is_rank_zero():
        return
    runs = find_runs(config)
    for run in runs:
        results = results_of(run)
        if any(read_rows(result) for result, _ in results):
            continue
        scored = any(manifest.stage in _SCORED for _, manifest in results)
        why = "it has no reference masks" if scored else f"none of {', '.join(_SCORED)} has finished"
        console.print(f"[yellow]left out[/]: {run} has no scores: {why}")
    suffix = {"markdown": "md", "latex": "tex"}.get(config.stage.format)
    if suffix is not None:
        text = (folder / f"comparison.{suffix}").read_text(encoding="utf-8")
        console.print(text, markup=False)
        return
    for name, header, title in (
        ("comparison", HEADER, "percent, mean ± standard deviation"),
        ("pairs", PAIRS_HEADER, "differences seed by seed, with 95 % interval of a paired t-test"),
    ):
        if rows := [[row[key] for key in header] for row in read_csv(folder / f"{name}.csv")]:
            print_table(title, header, rows, texts=len(header))


def find_runs(config: DictConfig) -> list[Path]:
    """The folders of the runs to compare, in the order of the patterns and, within one, of their names.

    Raises:
        UserError: `stage.compare.runs` is not set, or a pattern matches no folder with a finished stage.
    """
    patterns = listed(config.stage.runs)
    if not patterns:
        raise UserError(
            "stage.compare.runs is not set: type stage.compare.runs='runs/potsdam_*', or a list of folders"
        )
    matches: dict[Path, None] = {}
    for pattern in patterns:
        runs = dict.fromkeys(path for path in matching_folders(pattern) if results_of(path))
        if not runs:
            raise UserError(
                f"stage.compare.runs: no finished run matches {pattern}: give folders such as runs/potsdam_*"
            )
        matches |= runs
    return list(matches)


def _naming_settings(settings: str | Sequence[str] | None, results: Sequence[ScoredResult]) -> list[str]:
    """The settings that are to name the rows, after a warning about those that no result depends on."""
    names = listed(settings)
    known = {key for result in results for key in result.settings}
    for name in names:
        if not keys_under(name, known):
            console.print(f"[yellow]stage.compare.settings[/]: no result depends on {name}")
    return names


def _grouped(results: list[ScoredResult], naming: Sequence[str]) -> dict[_Group, list[ScoredResult]]:
    """Groups repetitions, and labels each group with the settings that distinguish it from the others."""
    by_row: dict[tuple[str, str], list[ScoredResult]] = {}
    for result in results:
        by_row.setdefault((result.row.name, result.row.scored_on), []).append(result)
    groups: dict[_Group, list[ScoredResult]] = {}
    for (name, scored_on), of_row in by_row.items():
        for result, label in zip(of_row, labels([one.settings for one in of_row], naming), strict=True):
            groups.setdefault(_Group(name, scored_on, label), []).append(result)
    return groups


def _pairs(groups: Mapping[_Group, Sequence[ScoredResult]]) -> Iterator[list[str]]:
    """Rows that compare each group with the first one of the same name and data, over their common seeds."""
    first: dict[tuple[str, str], _Group] = {}
    for group, results in groups.items():
        baseline = first.setdefault((group.name, group.scored_on), group)
        mious = [
            {one.seed: one.row.scores.miou for one in repetitions if one.seed is not None}
            for repetitions in (groups[baseline], results)
        ]
        if group != baseline and (difference := paired_difference(*mious)) is not None:
            yield [*group, baseline.settings, *difference.cells()]


def _spread(results: Sequence[ScoredResult], score: str) -> Spread:
    return spread([getattr(one.row.scores, score) for one in results])


def _cells(group: _Group, results: Sequence[ScoredResult]) -> list[str]:
    fraction = spread([one.row.fraction for one in results])
    means = (_spread(results, score) for score in ("miou", "mf1", "oa"))
    classes = range(len(results[0].row.scores.names))
    ious = (spread([one.row.scores.iou[index] for one in results]) for index in classes)
    return [*group, str(len(results)), str(fraction), *map(str, means), *map(str, ious)]


def _sources(config: DictConfig) -> list[Any]:
    """Identities of the scores of all runs."""
    folders = [folder for run in find_runs(config) for folder, _ in results_of(run)]
    return [identity(folder / SCORES) for folder in folders if (folder / SCORES).is_file()]


STAGE = Stage("compare", run, external_files=_sources)
