"""Finished runs -> one table of their scores; repetitions of a run become mean and spread."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import write_csv, write_text
from ome.pipeline.artifacts import inherited_runs, listed, matching_folders, results_of
from ome.pipeline.layout import RESOLVED
from ome.pipeline.manifest import Manifest, identity
from ome.pipeline.stage import Stage, Work
from ome.plots.figures import save_spreads
from ome.progress import console
from ome.scoring.pairs import paired_difference
from ome.scoring.rows import NAME as SCORES
from ome.scoring.rows import Row, read_rows
from ome.scoring.scores import Scores
from ome.scoring.spread import Spread, flatten, keys_under, labels, spread
from ome.scoring.tables import latex_lines, markdown_lines

HEADER = ("scored", "on", "settings", "runs", "pixels", "mIoU", "mF1", "OA")
PAIRS_HEADER = ("scored", "on", "settings", "compared with", "seeds", "mIoU more", "from", "to", "p")
# What a run is repeated with, and where its files lay.
_SILENT = ("seed", "sources")


class _Group(NamedTuple):
    """The key that repetitions of a row share."""

    name: str
    scored_on: str
    settings: str


@dataclass(frozen=True)
class _Result:
    """A row of one run, with the settings that its stage and those before it were run with."""

    row: Row
    settings: dict[str, Hashable]
    seed: Hashable


def run(work: Work) -> dict[str, Any]:
    """Collects the rows of all runs: `comparison.csv`, `.md`, `.tex`, `.png`, `.pdf`, and `pairs.csv`."""
    if not is_rank_zero():
        return {}
    folders = find_runs(work.config)
    results = list(_results(folders, inherited_runs(work.config)))
    if not results:
        raise UserError(
            f"none of the {len(folders)} runs of stage.compare.runs={work.settings.runs} has scores: "
            "stages leave them where there are reference masks (dataset.masks for images of your own)"
        )
    results = _of_same_classes(results)
    groups = _grouped(results, _named(work.settings.settings, results))
    rows = [_cells(group, same) for group, same in groups.items()]
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
        ", ".join(filter(None, (group.name, group.settings))): _of([one.row for one in same], "miou")
        for group, same in groups.items()
    }
    save_spreads(work.folder / "comparison.png", bars, "mIoU, %")
    if work.settings.format in texts:
        console.print(texts[work.settings.format], highlight=False, markup=False)
    else:
        _show(HEADER, rows, "percent, mean ± standard deviation")
        if pairs:
            _show(PAIRS_HEADER, pairs, "differences seed by seed, with 95 % interval of a paired t-test")
    return {"runs": len(folders), "rows": len(rows)}


def find_runs(config: DictConfig) -> list[Path]:
    """The folders of the runs to compare: those of the first pattern first, each in order of their names.

    Raises:
        UserError: `stage.compare.runs` is not set, or a pattern matches no folder with a finished stage.
    """
    patterns = listed(config.stage.runs)
    if not patterns:
        raise UserError(
            "stage.compare.runs is not set: type stage.compare.runs='runs/potsdam_*', or a list of folders"
        )
    runs_of: dict[Path, None] = {}
    for pattern in patterns:
        runs = dict.fromkeys(path for path in matching_folders(pattern) if results_of(path))
        if not runs:
            raise UserError(
                f"stage.compare.runs: no finished run matches {pattern}: give folders such as runs/potsdam_*"
            )
        runs_of |= runs
    return list(runs_of)


def _results(runs: Sequence[Path], others: Sequence[Path]) -> Iterable[_Result]:
    """The scores of the runs' stages; the report only repeats what others scored.

    Args:
        runs: The runs to compare.
        others: Runs whose stages these may have read; they lend settings and no scores.
    """
    compared = [(run, artefact) for run in runs for artefact in results_of(run)]
    known = [*(one for _, one in compared), *(artefact for run in others for artefact in results_of(run))]
    by_fingerprint = {manifest.fingerprint: manifest for _, manifest in known}
    datasets = {run: _dataset(run) for run in runs}
    seen: set[str] = set()
    scored: list[tuple[Path, dict[str, Hashable], Hashable]] = []
    for run, (folder, manifest) in compared:
        if manifest.stage in {"report", "compare"}:
            continue
        if manifest.fingerprint in seen:  # the same result in two folders is no repetition
            continue
        seen.add(manifest.fingerprint)
        settings = _settings(manifest, by_fingerprint) | datasets[run]
        scored.append((folder, settings, _seed(manifest, by_fingerprint)))
    # A run that was interrupted after its last score does not say the name; one of the same scenes does.
    names = {
        one["scenes"]: one["dataset.name"] for _, one, _ in scored if {"scenes", "dataset.name"} <= {*one}
    }
    for folder, settings, seed in scored:
        if (scenes := settings.get("scenes")) in names:
            settings.setdefault("dataset.name", names[scenes])
        yield from (_Result(row, settings, seed) for row in read_rows(folder))


def _settings(manifest: Manifest, by_fingerprint: Mapping[str, Manifest]) -> dict[str, Hashable]:
    """The settings of a stage, and of all those before it that are known."""
    settings: dict[str, Hashable] = {}
    for name, fingerprint in manifest.inputs.items():
        if (before := by_fingerprint.get(fingerprint)) is not None:
            settings |= _settings(before, by_fingerprint)
        elif name == "prepare":  # what was scored on other scenes is no repetition
            settings["scenes"] = fingerprint
    flat = {
        f"stage.{manifest.stage}" if key == "stage" else key: value for key, value in manifest.config.items()
    }
    return settings | flatten({key: value for key, value in flat.items() if key not in _SILENT})


def _dataset(run: Path) -> dict[str, Hashable]:
    """The name of a run's dataset, where a command of the run has come to its end."""
    for path in sorted(run.glob(f"logs/*/{RESOLVED}")):
        name = OmegaConf.select(OmegaConf.load(path), "dataset.name")
        if name is not None:
            return {"dataset.name": str(name)}
    return {}


def _of_same_classes(results: Sequence[_Result]) -> list[_Result]:
    """The results with their classes in the order of the first.

    Raises:
        UserError: Their classes differ: no table has a column for them.
    """
    names, same = results[0].row.scores.names, list[_Result]()
    for result in results:
        scores = result.row.scores
        if set(scores.names) != set(names):
            raise UserError(
                f"stage.compare.runs: there are runs of the classes {', '.join(names)}, and runs of "
                f"{', '.join(scores.names)}: compare them apart"
            )
        order = [scores.names.index(name) for name in names]
        row = replace(result.row, scores=Scores(scores.matrix[np.ix_(order, order)], names))
        same.append(replace(result, row=row))
    return same


def _seed(manifest: Manifest, by_fingerprint: Mapping[str, Manifest]) -> Hashable:
    """The seed of a stage, or of the latest training that it is made from; None where that is not known."""
    if "seed" in manifest.config:
        return str(manifest.config["seed"])
    before = (by_fingerprint.get(fingerprint) for fingerprint in reversed(manifest.inputs.values()))
    seeds = (_seed(one, by_fingerprint) for one in before if one is not None)
    return next((seed for seed in seeds if seed is not None), None)


def _named(settings: Any, results: Sequence[_Result]) -> list[str]:  # noqa: ANN401 - a text or a list of them
    """The settings that rows are named by; one that no result depends on is pointed out."""
    named = listed(settings)
    known = {key for result in results for key in result.settings}
    for name in named:
        if not keys_under(name, known):
            console.print(f"[yellow]stage.compare.settings[/]: no result depends on {name}", highlight=False)
    return named


def _grouped(results: list[_Result], named: Sequence[str]) -> dict[_Group, list[_Result]]:
    """Gathers repetitions, and names each group by the settings that tell it from the others."""
    of_row: dict[tuple[str, str], list[_Result]] = {}
    for result in results:
        of_row.setdefault((result.row.name, result.row.scored_on), []).append(result)
    groups: dict[_Group, list[_Result]] = {}
    for (name, scored_on), same in of_row.items():
        for result, label in zip(same, labels([result.settings for result in same], named), strict=True):
            groups.setdefault(_Group(name, scored_on, label), []).append(result)
    return groups


def _pairs(groups: Mapping[_Group, Sequence[_Result]]) -> Iterator[list[str]]:
    """Every setting compared with the first one that the same was scored of, over the seeds of both."""
    first: dict[tuple[str, str], _Group] = {}
    for group, results in groups.items():
        baseline = first.setdefault((group.name, group.scored_on), group)
        mious = [
            {one.seed: one.row.scores.miou for one in some if one.seed is not None}
            for some in (groups[baseline], results)
        ]
        if group != baseline and (difference := paired_difference(*mious)) is not None:
            yield [*group, baseline.settings, *difference.cells()]


def _of(rows: list[Row], name: str) -> Spread:
    return spread([getattr(row.scores, name) for row in rows])


def _cells(group: _Group, results: Sequence[_Result]) -> list[str]:
    rows = [one.row for one in results]
    means = (spread([row.fraction for row in rows]), *(_of(rows, name) for name in ("miou", "mf1", "oa")))
    classes = (spread([row.scores.iou[index] for row in rows]) for index in range(len(rows[0].scores.names)))
    return [*group, str(len(rows)), *map(str, means), *map(str, classes)]


def _show(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*row[: len(header)])
    console.print(table)


def _sources(config: DictConfig) -> list[Any]:
    folders = [folder for run in find_runs(config) for folder, _ in results_of(run)]
    return [identity(folder / SCORES) for folder in folders if (folder / SCORES).is_file()]


STAGE = Stage("compare", run, external_files=_sources)
