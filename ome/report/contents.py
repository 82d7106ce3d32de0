"""Contents of the report's page: tables and training histories of the finished stages as charts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.files import read_csv, read_json
from ome.pipeline.layout import CAM_TITLES, TAG_SCORES
from ome.plots.charts import Bar, LineChart, heat_cells, line_chart, percent_bars
from ome.plots.figures import Curve
from ome.report.judging import Judged
from ome.scoring.calibration import merged_levels
from ome.scoring.rows import Row, read_rows
from ome.scoring.scores import ratio
from ome.scoring.tables import RatioOf, csv_table, miou_ratio, percent

Table = dict[str, list[Any]]
"""`header`, and `rows` of texts."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the template."""
    return {"header": list(header), "rows": [list(row) for row in rows]}


def score_cards(rows: Sequence[Row], ratio_of: RatioOf | None) -> dict[str, str]:
    """The figures that matter most: both mIoU and their ratio, or where there is no pair, the last row's."""
    scores = {row.name: row.scores for row in rows}
    if ratio_of is None:
        return {f"mIoU of {rows[-1].name}": f"{percent(rows[-1].scores.miou)} %"}
    weak, full = ratio_of
    reached = percent(miou_ratio(scores, weak, full))
    return {
        f"mIoU of {weak}": f"{percent(scores[weak].miou)} %",
        f"mIoU of {full}": f"{percent(scores[full].miou)} %",
        "of the pixel-supervised mIoU reached from tags alone": f"{reached} %",
    }


def class_bars(rows: Sequence[Row]) -> dict[str, list[Bar]]:
    """The IoU of every row, by class."""
    return {
        name: percent_bars({row.name: float(row.scores.iou[index]) for row in rows})
        for index, name in enumerate(rows[0].scores.names)
    }


def confusions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The confusion matrices of some rows in percent of the reference."""
    return [
        {
            "title": f"Confusion of the {row.name}",
            "note": f"{row.where}; what each class of the reference (row) was taken for, in percent",
            "names": row.scores.names,
            "cells": heat_cells(
                100 * ratio(row.scores.matrix, row.scores.matrix.sum(axis=1, keepdims=True)),
                decimals=1,
                maximum=100,
            ),
        }
        for row in rows
    ]


def tag_bars(labels: Path) -> list[Bar]:
    """Tiles that show each class, and those of them that the filter dropped because of it."""
    summary = read_json(labels / "labels.json")
    counts, dropped = summary["tiles_with_class"], summary["dropped_for_class"]
    most = max([*counts.values(), 1])
    return [
        Bar(
            name,
            f"{count:,}" + (f" ({dropped[name]:,} dropped)" if dropped[name] else ""),
            (count - dropped[name]) / most,
            dropped[name] / most,
        )
        for name, count in counts.items()
    ]


def tag_scores(cam: Path) -> Table | None:
    """How well the classifier tags the tiles of `val`; None where it was not asked."""
    if not (cam / TAG_SCORES).exists():
        return None

    def share(part: str, whole: str) -> str:
        return f"{100 * int(part) / int(whole):.0f} % ({part} of {whole})" if int(whole) else "none"

    rows = [
        (row["class"], share(row["right"], row["given"]), share(row["right"], row["shown"]))
        for row in read_csv(cam / TAG_SCORES)
    ]
    return table(("class", "of its tags right (precision)", "of its tiles tagged (recall)"), rows)


def read_cooccurrence(labels: Path) -> tuple[list[str], NDArray[np.float64]]:
    """The class names, and (C, C) the co-occurrence of classes in 0..1."""
    rows = read_csv(labels / "cooccurrence.csv")
    names = [row["class"] for row in rows]
    return names, np.array([[float(row[name]) for name in names] for row in rows])


def cooccurrence_map(labels: Path) -> dict[str, Any]:
    """The co-occurrence of classes."""
    names, matrix = read_cooccurrence(labels)
    return {
        "title": "Co-occurrence",
        "note": "Of the tiles that train the classifier and show the row's class, the share that also shows "
        "the column's.",
        "names": names,
        "cells": heat_cells(matrix, decimals=2),
    }


def trainings(inputs: Mapping[str, Path]) -> dict[str, list[LineChart]]:
    """The charts of every training that left a history."""
    return {
        name: [line_chart(title, {title: curve}) for title, curve in curves.items()]
        for name, curves in histories(inputs).items()
    }


def histories(inputs: Mapping[str, Path]) -> dict[str, dict[str, Curve]]:
    """The curves of every training that left a history, without those that say nothing."""
    by_name = {}
    for stage, folder in inputs.items():
        for path in sorted(folder.rglob("history.csv")):
            name = " ".join([stage, *path.parent.relative_to(folder).parts]).replace("_", " ")
            curves = read_curves(path)
            by_name[name] = {title: curve for title, curve in curves.items() if _says_something(curve)}
    return by_name


def _says_something(curve: Curve) -> bool:
    """Not 0 or nan all along, as losses that are switched off and scores without a reference are."""
    return bool(np.nan_to_num(curve[1]).any())


def read_curves(history: Path) -> dict[str, Curve]:
    """The steps and values of each quantity that a training recorded."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in read_csv(history):
        steps, values = curves.setdefault(row["name"], ([], []))
        steps.append(int(row["step"]))
        values.append(float(row["value"]))
    return dict(curves)


def uncertainty(criteria: Mapping[str, NDArray[np.int64]], judged_on: str) -> dict[str, Any] | None:
    """Whether a low weight means a wrong pixel.

    Args:
        criteria: Sums of `error_counts` by what the levels are; the first is the weight.
        judged_on: Which tiles were counted.

    Returns:
        Charts of the error rate by level, and how full weight differs from less; None without pixels.
    """
    if not criteria or not next(iter(criteria.values())).sum():
        return None
    return {
        "verdict": _verdict(next(iter(criteria.values()))),
        "note": f"Share of wrong pixels at each level, and in brackets the share of the pixels that have it; "
        f"on {judged_on}.",
        "charts": {name: _level_bars(counts) for name, counts in criteria.items() if counts.sum()},
    }


def worst_table(judged: Sequence[Judged]) -> Table:
    """Names and scores of tiles."""
    rows = [[one.tile.name, percent(one.scores.miou), percent(one.scores.oa), _missed(one)] for one in judged]
    return table(["tile", "mIoU", "OA", "weakest class"], rows)


def ablation(folder: Path) -> dict[str, Any]:
    """The variants of the pseudo masks and the thresholds of the maps, from the files of stage=ablation."""
    rows = read_rows(folder)
    header, body = csv_table({row.name: row.scores for row in rows})
    cells = [[*line, percent(row.fraction)] for line, row in zip(body, rows, strict=True)]
    charts = [
        chart
        for stage, title in CAM_TITLES.items()
        if (folder / f"thresholds_{stage}.csv").exists()
        for chart in _threshold_charts(folder / f"thresholds_{stage}.csv", title)
    ]
    return {
        "note": f"Pseudo masks that can be made of the same CAMs, in percent, on {rows[0].scored_on}; "
        "pixels: the share that the variant decides about, which alone is scored.",
        "table": table([*header, "pixels"], cells),
        "bars": percent_bars({row.name: row.scores.miou for row in rows}),
        "thresholds": charts,
    }


def _threshold_charts(path: Path, title: str) -> list[LineChart]:
    """IoU, precision and recall over the threshold, one chart a class."""
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


def _verdict(counts: NDArray[np.int64]) -> str:
    full, less = counts[-1], counts[:-1].sum(axis=0)
    if not full.sum() or not less.sum():
        return (
            f"All pixels have the same confidence; {percent(counts[:, 1].sum() / counts.sum())} % are wrong."
        )
    certain, doubtful = float(full[1] / full.sum()), float(less[1] / less.sum())
    means = "means" if doubtful > certain else "does not mean"
    return (
        f"Of the pixels with full weight ({percent(full.sum() / counts.sum())} % of all) "
        f"{percent(certain)} % are wrong, of the others {percent(doubtful)} %: "
        f"here a low weight {means} an error more often."
    )


def _missed(one: Judged) -> str:
    """The class of the lowest IoU in a tile."""
    return one.scores.names[int(np.nanargmin(one.scores.iou))]
