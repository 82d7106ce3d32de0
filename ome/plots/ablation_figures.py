"""Charts of the ablation: scores of mask variants, scores over thresholds, errors by weight."""

import math
from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ome.plots.figures import BLUE, ORANGE, plain
from ome.scoring.calibration import merged_levels
from ome.scoring.thresholds import THRESHOLDS, ThresholdCurves

GREEN = "#228833"
"""A third colour that remains distinct from `BLUE` and `ORANGE`."""
BARS = 6  # levels of a chart whose labels do not touch


def bars_figure(values: Mapping[str, float], partial: Collection[str] = ()) -> Figure:
    """Horizontal bars of the mIoU of mask variants.

    Args:
        values: mIoU in [0, 1] by name, from top to bottom; nan leaves a gap.
        partial: Names of the variants that are scored on a part of the pixels and drawn hatched.
    """
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(values)), layout="constrained")
    axes = figure.add_subplot()
    kinds = (
        ("all pixels", BLUE, "", [name for name in values if name not in partial]),
        ("some pixels", ORANGE, "////", [name for name in values if name in partial]),
    )
    rows = {name: row for row, name in enumerate(values)}
    for label, colour, hatch, names in kinds:
        if names:
            places, widths = [rows[name] for name in names], [100 * values[name] for name in names]
            axes.barh(places, widths, 0.65, color=colour, hatch=hatch, edgecolor="white", label=label)
    for name, value in values.items():
        text = "–" if math.isnan(value) else f"{100 * value:.1f}"  # noqa: RUF001 - a dash for no value
        at = (0.0 if math.isnan(value) else 100 * value, rows[name])
        axes.annotate(text, at, (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(list(rows.values()), list(rows))
    axes.invert_yaxis()
    axes.set_xlim(0, 108)  # room for the numbers
    axes.set_xlabel("mIoU, %", fontsize=9)
    plain(axes)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def thresholds_figure(curves: ThresholdCurves) -> Figure:
    """One small chart per class: IoU, precision and recall by threshold, with the highest IoU marked."""
    columns = min(3, len(curves.names))
    rows = math.ceil(len(curves.names) / columns)
    figure = Figure(figsize=(3.4 * columns, 0.5 + 2.4 * rows), layout="constrained")
    lines = (
        ("IoU", curves.iou, BLUE),
        ("precision", curves.precision, ORANGE),
        ("recall", curves.recall, GREEN),
    )
    best = curves.best()
    for label, name in enumerate(curves.names):
        axes = figure.add_subplot(rows, columns, label + 1)
        for title, scores, colour in lines:
            shown = None if label else title
            axes.plot(THRESHOLDS, 100 * scores[label], color=colour, linewidth=1.2, label=shown)
        heading = name
        if name in best:
            threshold, iou = best[name]
            axes.plot([threshold], [100 * iou], color=BLUE, marker="o", markersize=4)
            heading = f"{name}: {100 * iou:.1f} at {threshold:.2f}"
        axes.set_title(heading, fontsize=9)
        axes.set_ylim(0, 100)
        axes.grid(visible=True, linewidth=0.4, alpha=0.6)
        if label >= len(curves.names) - columns:
            axes.set_xlabel("threshold", fontsize=8)
        if label % columns == 0:
            axes.set_ylabel("%", fontsize=8)
        plain(axes)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure


def calibration_figure(criteria: Mapping[str, NDArray[np.int64]]) -> Figure:
    """One chart per criterion: the error rate at each level, see `merged_levels`, and its fraction of pixels.

    Args:
        criteria: Sums of `error_counts` by criterion; the chart of a criterion without pixels is empty.
    """
    figure = Figure(figsize=(3.6 * max(1, len(criteria)), 3), layout="constrained")
    for place, (name, counts) in enumerate(criteria.items(), start=1):
        axes = figure.add_subplot(1, len(criteria), place)
        levels, pixels = merged_levels(counts, BARS), counts.sum()
        rates = [100 * wrong / (right + wrong) for right, wrong in levels.values()]
        bars = axes.bar(range(len(levels)), rates, 0.65, color=BLUE)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the dashed line
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8, bbox=box)
        if levels:
            overall = 100 * counts[:, 1].sum() / pixels
            shown = "all pixels" if place == 1 else None
            axes.axhline(overall, color=ORANGE, linewidth=1.2, linestyle="--", label=shown, zorder=0)
        ticks = [f"{level}\n{100 * sum(both) / pixels:.1f} %" for level, both in levels.items()]
        axes.set_xticks(range(len(levels)), ticks)
        axes.set_ylim(0, 110)  # room for the numbers
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("level, and fraction of the pixels", fontsize=8)
        if place == 1:
            axes.set_ylabel("wrong pixels, %", fontsize=8)
        plain(axes)
    figure.legend(loc="outside upper center", fontsize=8, frameon=False)
    return figure
