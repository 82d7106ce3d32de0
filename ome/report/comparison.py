"""Rows of a table that compares runs: repetitions as mean and spread, and differences seed by seed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ome.report.scored_runs import R, ScoredResult, TagRow
from ome.scoring.pairs import paired_difference
from ome.scoring.rows import Row
from ome.scoring.scores import mean_of_defined
from ome.scoring.spread import Spread, labels, spread, varying


class Group(NamedTuple):
    """What repetitions have in common."""

    name: str
    scored_on: str
    settings: str


def grouped(results: list[ScoredResult[R]], naming: Sequence[str]) -> dict[Group, list[ScoredResult[R]]]:
    """Groups repetitions, and labels each group with the settings that distinguish it from the others."""
    groups: dict[Group, list[ScoredResult[R]]] = {}
    for (name, scored_on), of_row in _by_row(results).items():
        alone = len(of_row) == 1 and not naming  # nothing to distinguish it from: its run is its name
        names = [of_row[0].run.name] if alone else labels([one.settings for one in of_row], naming)
        for result, label in zip(of_row, names, strict=True):
            groups.setdefault(Group(name, scored_on, label), []).append(result)
    return groups


def differing_settings(results: Sequence[ScoredResult[Any]]) -> list[list[str]]:
    """Every setting in which results of the same name differ, with its values; labels name only a few."""
    values: dict[str, dict[str, None]] = {}
    for of_row in _by_row(results).values():
        for key in varying([one.settings for one in of_row]):
            values.setdefault(key, {}).update(
                dict.fromkeys(str(one.settings.get(key, "-")) for one in of_row)
            )
    return [[key, " | ".join(different)] for key, different in values.items()]


def _by_row(results: Sequence[ScoredResult[R]]) -> dict[tuple[str, str], list[ScoredResult[R]]]:
    """The results by name and data."""
    by_row: dict[tuple[str, str], list[ScoredResult[R]]] = {}
    for result in results:
        by_row.setdefault((result.row.name, result.row.scored_on), []).append(result)
    return by_row


def paired_rows(groups: Mapping[Group, Sequence[ScoredResult[Row]]]) -> Iterator[list[str]]:
    """Rows that compare each group with the first one of the same name and data, over their common seeds."""
    first: dict[tuple[str, str], Group] = {}
    for group, results in groups.items():
        baseline = first.setdefault((group.name, group.scored_on), group)
        mious = [
            {one.seed: one.row.scores.miou for one in repetitions if one.seed is not None}
            for repetitions in (groups[baseline], results)
        ]
        if group != baseline and (difference := paired_difference(*mious)) is not None:
            yield [*group, baseline.settings, *difference.cells()]


def spread_of(results: Sequence[ScoredResult[Row]], score: str) -> Spread:
    """A score of `Scores`, such as `miou`, over repetitions."""
    return spread([getattr(one.row.scores, score) for one in results])


def score_cells(group: Group, results: Sequence[ScoredResult[Row]]) -> list[str]:
    """A row of scores, in percent with the spread of repetitions."""
    fraction = spread([one.row.fraction for one in results])
    means = (spread_of(results, score) for score in ("miou", "mf1", "oa"))
    classes = range(len(results[0].row.scores.names))
    ious = (spread([one.row.scores.iou[index] for one in results]) for index in classes)
    return [*group, str(len(results)), str(fraction), *map(str, means), *map(str, ious)]


def tag_cells(group: Group, results: Sequence[ScoredResult[TagRow]], names: Sequence[str]) -> list[str]:
    """A row of F1 of tags, in percent: the mean over the classes that occur, then those of `names`."""
    scores = [[one.row.f1[name] for name in names] for one in results]
    means = spread([mean_of_defined(np.array(of_run)) for of_run in scores])
    of_classes = (str(spread(of_class)) for of_class in zip(*scores, strict=True))
    return [*group, str(len(results)), str(means), *of_classes]
