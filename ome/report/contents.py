"""Sections of the report about scores and tags, as tables and charts for the template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.files import read_csv, read_json
from ome.pipeline.layout import COOCCURRENCE, TAG_SCORES, TAG_SUMMARY
from ome.plots.charts import Bar, heat_cells, percent_bars
from ome.report.tile_quality import TileQuality
from ome.scoring.rows import Row
from ome.scoring.scores import ratio
from ome.scoring.tables import RatioOf, miou_ratio, percent

Table = dict[str, list[Any]]
"""`header`, and `rows` of texts."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the template."""
    return {"header": list(header), "rows": [list(row) for row in rows]}


def score_cards(rows: Sequence[Row], ratio_of: RatioOf | None) -> dict[str, str]:
    """The most important figures: both mIoU and their ratio, or the mIoU of the last row without a pair."""
    scores = {row.name: row.scores for row in rows}
    if ratio_of is None:
        return {f"mIoU of {rows[-1].name}": f"{percent(rows[-1].scores.miou)} %"}
    weak, full, note = ratio_of
    reached = percent(miou_ratio(scores, weak, full))
    what = "of the pixel-supervised mIoU reached from tags alone"
    return {
        f"mIoU of {weak}": f"{percent(scores[weak].miou)} %",
        f"mIoU of {full}": f"{percent(scores[full].miou)} %",
        f"{what}; {note}" if note else what: f"{reached} %",
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
            "note": f"{row.where}; classes predicted (columns) for each reference class (row), in percent",
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
    """Training tiles with each class, and those of them in which it is too small to learn from."""
    summary = read_json(labels / TAG_SUMMARY)
    counts, dropped = summary["tiles_with_class"], summary["dropped_for_class"]
    most = max([*counts.values(), 1])
    return [
        Bar(
            name,
            f"{count:,}" + (f" ({dropped[name]:,} too small)" if dropped[name] else ""),
            (count - dropped[name]) / most,
            dropped[name] / most,
        )
        for name, count in counts.items()
    ]


def tag_scores(cam: Path) -> Table | None:
    """Precision and recall of the classifier's tags on the tiles of `val`; None without such tiles."""
    if not (cam / TAG_SCORES).exists():
        return None

    def fraction(part: str, whole: str, without: str) -> str:
        return f"{100 * int(part) / int(whole):.0f} % ({part} of {whole})" if int(whole) else without

    rows = [
        (
            row["class"],
            fraction(row["right"], row["given"], "never predicted"),
            fraction(row["right"], row["shown"], "in no tile of val"),
        )
        for row in read_csv(cam / TAG_SCORES)
    ]
    return table(("class", "of its tags right (precision)", "of its tiles tagged (recall)"), rows)


def read_cooccurrence(labels: Path) -> tuple[list[str], NDArray[np.float64]]:
    """The class names, and their co-occurrence (C, C) in [0, 1], from the folder of stage labels."""
    rows = read_csv(labels / COOCCURRENCE)
    names = [row["class"] for row in rows]
    return names, np.array([[float(row[name]) for name in names] for row in rows])


def cooccurrence_map(labels: Path) -> dict[str, Any]:
    """The co-occurrence of classes as a heat map."""
    names, matrix = read_cooccurrence(labels)
    return {
        "title": "Co-occurrence",
        "note": "Fraction of the training tiles with the row's class that also have the column's class.",
        "names": names,
        "cells": heat_cells(matrix, decimals=2),
    }


def worst_table(scored: Sequence[TileQuality]) -> Table:
    """Names, scores and the class of lowest IoU of tiles."""
    rows = [
        [
            one.tile.name,
            percent(one.scores.miou),
            percent(one.scores.oa),
            one.scores.names[int(np.nanargmin(one.scores.iou))],
        ]
        for one in scored
    ]
    return table(["tile", "mIoU", "OA", "weakest class"], rows)
