"""Sections of the report about the quality of the pseudo masks: errors by weight, and the ablation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.files import read_csv
from ome.pipeline.layout import CAM_TITLES
from ome.plots.charts import Bar, LineChart, line_chart, percent_bars
from ome.report.contents import table
from ome.scoring.calibration import merged_levels
from ome.scoring.rows import read_rows, variant_table
from ome.scoring.tables import percent


def uncertainty(criteria: Mapping[str, NDArray[np.int64]], scored_on: str) -> dict[str, Any] | None:
    """Whether pixels with a low weight are wrong more often.

    Args:
        criteria: Sums of `error_counts` by criterion, none of them 0; the first criterion is the weight.
        scored_on: Description of the counted tiles.

    Returns:
        Charts of the error rate by level, and a sentence about the largest weight and the others; None
        without criteria.
    """
    if not criteria:
        return None
    return {
        "verdict": _verdict(next(iter(criteria.values()))),
        "note": f"Wrong pixels at each level, and in brackets the fraction of pixels there; on {scored_on}.",
        "charts": {name: _level_bars(counts) for name, counts in criteria.items()},
    }


def _verdict(counts: NDArray[np.int64]) -> str:
    *others, largest = np.flatnonzero(counts.sum(axis=1))
    if not others:
        return (
            f"All pixels have the weight {largest}; {percent(counts[largest, 1] / counts.sum())} % are wrong."
        )
    full, lower = counts[largest], counts[others].sum(axis=0)
    certain, uncertain = float(full[1] / full.sum()), float(lower[1] / lower.sum())
    means = "means" if uncertain > certain else "does not mean"
    return (
        f"Of the pixels with the largest weight, {largest} ({percent(full.sum() / counts.sum())} % of all), "
        f"{percent(certain)} % are wrong, of the others {percent(uncertain)} %: "
        f"here a low weight {means} an error more often."
    )


def _level_bars(counts: NDArray[np.int64]) -> list[Bar]:
    pixels = counts.sum()
    return [
        Bar(
            f"level {level}",
            f"{100 * wrong / (right + wrong):.1f} % ({100 * (right + wrong) / pixels:.1f} %)",
            wrong / (right + wrong),
        )
        for level, (right, wrong) in merged_levels(counts).items()
    ]


def ablation(folder: Path) -> dict[str, Any]:
    """Scores of the variants of the pseudo masks, and of the CAMs by threshold.

    Args:
        folder: The folder of stage ablation.
    """
    rows = read_rows(folder)
    charts = [
        chart
        for stage, title in CAM_TITLES.items()
        if (folder / f"thresholds_{stage}.csv").exists()
        for chart in _threshold_charts(folder / f"thresholds_{stage}.csv", title)
    ]
    return {
        "note": f"Pseudo masks that can be made from the same CAMs, in percent, on {rows[0].scored_on}. Only "
        "the pixels for which a variant has a class are scored; the last column gives their fraction.",
        "table": table(*variant_table(rows)),
        "bars": percent_bars({row.name: row.scores.miou for row in rows}),
        "thresholds": charts,
    }


def _threshold_charts(path: Path, title: str) -> list[LineChart]:
    """IoU, precision and recall by threshold, one chart per class."""
    rows = read_csv(path)
    charts = []
    for name in dict.fromkeys(row["class"] for row in rows):
        of_class = [row for row in rows if row["class"] == name]
        steps = [float(row["threshold"]) for row in of_class]
        curves = {
            score: (steps, [float("nan") if row[score] == "-" else float(row[score]) for row in of_class])
            for score in ("IoU", "precision", "recall")
        }
        charts.append(line_chart(f"{title}: {name}", curves, percent=True))
    return charts
