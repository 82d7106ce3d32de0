"""Finished runs -> one table of their scores, with mean and standard deviation of repetitions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError, few
from ome.files import read_csv, write_csv, write_text
from ome.pipeline.artifacts import as_list, inherited_runs, matching_folders, results_of
from ome.pipeline.layout import TAG_SCORES
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.plots.figures import spreads_figure
from ome.plots.saving import save_figure
from ome.progress import console, print_table
from ome.report.comparison import differing_settings, grouped, paired_rows, score_cells, spread_of, tag_cells
from ome.report.scored_runs import (
    ScoredResult,
    check_classes,
    scored_results,
    tag_rows,
    with_same_classes,
)
from ome.scoring.rows import NAME as SCORES
from ome.scoring.rows import read_rows
from ome.scoring.spread import keys_under
from ome.scoring.tables import latex_lines, markdown_lines

HEADER = ("scored", "on", "settings", "runs", "pixels", "mIoU", "mF1", "OA")
TAGS_HEADER = ("scored", "on", "settings", "runs", "mean F1")
PAIRS_HEADER = ("scored", "on", "settings", "compared with", "seeds", "mIoU more", "from", "to", "p")

DIFFERENCES = "differences.csv"

_SCORED = ("cam", "affinity", "pseudo", "ablation", "seg", "refine")
_WHENCE = (
    f"the stages {', '.join(_SCORED[:-1])} and {_SCORED[-1]} compute them, and only with reference masks "
    "(dataset.masks for images of your own). Without masks, runs are compared by the tags that their "
    "classifier predicts for images of the split val: give some images this split"
)


def run(work: Work) -> dict[str, Any]:
    """Collects the rows of all runs.

    Writes `comparison.md`, `.tex` and `differences.csv`; if there are reference masks, `comparison.csv`,
    `.png`, `.pdf` and `pairs.csv`; if there are tags of `val`, `tags.csv`.
    """
    if not is_rank_zero():
        return {}
    folders, others = find_runs(work.config), inherited_runs(work.config)
    results = list(scored_results(folders, others, read_rows))
    tags = list(scored_results(folders, others, tag_rows))
    if not results and not tags:
        raise UserError(
            f"none of the {len(folders)} runs of stage.compare.runs={work.settings.runs} has scores: "
            f"{_WHENCE}"
        )
    naming = _naming_settings(work.settings.settings, [*results, *tags])
    tables: dict[str, tuple[Sequence[str], list[list[str]]]] = {}
    if results:
        results = with_same_classes(results)
        groups = grouped(results, naming)
        scores = [score_cells(group, repetitions) for group, repetitions in groups.items()]
        tables["comparison"] = [*HEADER, *results[0].row.scores.names], scores
        tables["pairs"] = PAIRS_HEADER, list(paired_rows(groups))
        bars = {
            ", ".join(filter(None, (group.name, group.settings))): spread_of(repetitions, "miou")
            for group, repetitions in groups.items()
        }
        save_figure(work.folder / "comparison.png", spreads_figure(bars, "mIoU, %"))
    if tags:
        check_classes([(result.run, result.row.f1) for result in tags])
        names, by_group = list(tags[0].row.f1), grouped(tags, naming)
        tables["tags"] = [*TAGS_HEADER, *names], [tag_cells(*one, names) for one in by_group.items()]
    write_csv(work.folder / DIFFERENCES, ("setting", "values"), differing_settings([*results, *tags]))
    for name, table in tables.items():
        write_csv(work.folder / f"{name}.csv", *table)
    for suffix, lines in (("md", markdown_lines), ("tex", latex_lines)):
        shown = "\n".join(
            lines(*table, texts=4 if name == "pairs" else 3) for name, table in tables.items() if table[1]
        )
        write_text(work.folder / f"comparison.{suffix}", shown)
    rows = [row for name, (_, body) in tables.items() if name != "pairs" for row in body]
    return {"runs": len(folders), "rows": len(rows)}


def show(config: DictConfig, folder: Path) -> None:
    """Prints a finished comparison in the configured format, and the runs that have no scores."""
    if not is_rank_zero():
        return
    for run in find_runs(config):
        results = results_of(run)
        for note in dict.fromkeys(row.note for result, _ in results for row in read_rows(result)):
            if note:
                console.print(f"{run}: {note}", markup=False)
        stages = {manifest.stage for _, manifest in results}
        if stages == {"compare"} or any(read_rows(result) or tag_rows(result) for result, _ in results):
            continue
        scored = not stages.isdisjoint(_SCORED)
        why = "it has no reference masks" if scored else f"none of {', '.join(_SCORED)} has finished"
        console.print(f"[yellow]left out[/]: {run} has no scores: {why}")
    path = folder / DIFFERENCES
    settings = [row["setting"] for row in (read_csv(path) if path.exists() else ())]
    if len(settings) > 1:
        listed = f"the runs differ in {len(settings)} settings: {few(settings)} ({path})"
        console.print(listed, markup=False)
    suffix = {"markdown": "md", "latex": "tex"}.get(config.stage.format)
    if suffix is not None:
        text = (folder / f"comparison.{suffix}").read_text(encoding="utf-8")
        print(text)  # noqa: T201 - the console may be standard error
        return
    for name, header, title in (
        ("comparison", HEADER, "percent, mean ± standard deviation"),
        ("pairs", PAIRS_HEADER, "differences seed by seed, with 95 % interval of a paired t-test"),
        ("tags", TAGS_HEADER, "tags of the split val that the classifier predicts, percent"),
    ):
        path = folder / f"{name}.csv"
        if rows := [[row[key] for key in header] for row in (read_csv(path) if path.exists() else ())]:
            print_table(title, header, rows, texts=len(header))


def find_runs(config: DictConfig) -> list[Path]:
    """The folders of the runs to compare, in the order of the patterns and, within one, of their names.

    Raises:
        UserError: `stage.compare.runs` is not set, or a pattern matches no folder with a finished stage.
    """
    patterns = as_list(config.stage.runs)
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


def _naming_settings(settings: str | Sequence[str] | None, results: Sequence[ScoredResult[Any]]) -> list[str]:
    """The settings that are to name the rows, after a warning about those that no result depends on."""
    names = as_list(settings)
    known = {key for result in results for key in result.settings}
    for name in names:
        if not keys_under(name, known):
            console.print(f"[yellow]stage.compare.settings[/]: no result depends on {name}")
    return names


def _sources(config: DictConfig) -> list[Any]:
    """Identities of the scores of all runs."""
    folders = [folder for run in find_runs(config) for folder, _ in results_of(run)]
    files = (folder / name for folder in folders for name in (SCORES, TAG_SCORES))
    return [identity(path) for path in files if path.is_file()]


STAGE = Stage("compare", run, external_files=_sources)
