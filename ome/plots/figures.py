"""Charts of co-occurrence, confusion, tags and training, as figures."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from ome.scoring.scores import ratio
from ome.scoring.spread import Spread

BLUE, ORANGE = "#4477aa", "#ee8866"
"""Two colours that remain distinct with any kind of colour blindness (Paul Tol's schemes)."""

LETTERS: Final = 50
"""Number of letters per line in the name of a bar."""

NUMBERED: Final = 50
"""Largest number of classes of a heat map with numbers: larger ones would take gigabytes to draw."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Steps, and the values at these steps."""


def cooccurrence_figure(matrix: NDArray[np.float64], names: Sequence[str]) -> Figure:
    """Heat map with numbers of P(class of the column | class of the row).

    Args:
        matrix: (C, C) in [0, 1] from `cooccurrence`; nan rows are left blank.
        names: Class names in order of index.
    """
    figure = _heat_map(matrix, names, decimals=2)
    axes = figure.axes[0]
    axes.set_title(
        "Co-occurrence: of the tiles with the row's\nclass, the fraction with the column's", fontsize=10
    )
    axes.set_ylabel("tiles with", fontsize=9)
    axes.set_xlabel("also have", fontsize=9)
    return figure


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Heat map with numbers of a confusion matrix in percent of each reference class.

    Args:
        matrix: (C, C) pixel counts; rows are the reference. A class without reference pixels is left blank.
        names: Class names in order of index.
    """
    percent = 100 * ratio(matrix, matrix.sum(axis=1, keepdims=True))
    figure = _heat_map(percent, names, decimals=1, maximum=100)
    axes = figure.axes[0]
    axes.set_title("Confusion: % of the reference class", fontsize=10)
    axes.set_ylabel("reference", fontsize=9)
    axes.set_xlabel("prediction", fontsize=9)
    return figure


def tag_counts_figure(names: Sequence[str], tiles: Mapping[str, int], dropped: Mapping[str, int]) -> Figure:
    """Bars of the tiles with each class, and of those in which it is too small to learn from.

    Args:
        names: Class names, from top to bottom.
        tiles: Number of tiles with the class, by class name.
        dropped: Number of them of which the class covers too little, by class name.
    """
    figure = Figure(figsize=(7, 1.1 + 0.42 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(names))
    lost = np.array([dropped[name] for name in names])
    kept = np.array([tiles[name] for name in names]) - lost
    axes.barh(rows, kept, height=0.65, color=BLUE, label="covers enough")
    dropping = "too small to learn from"
    axes.barh(rows, lost, 0.65, left=kept, color=ORANGE, hatch="////", edgecolor="white", label=dropping)
    for row, name in enumerate(names):
        text = f"{tiles[name]:,}" + (f" (−{dropped[name]:,})" if dropped[name] else "")  # noqa: RUF001 - a minus
        axes.annotate(text, (tiles[name], row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(rows, names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max([1, *tiles.values()]) * 1.22)  # room for the numbers
    axes.set_xlabel("tiles with the class", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    plain(axes)
    axes.tick_params(axis="y", length=0, labelsize=9)
    if lost.any():
        figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def curves_figure(curves: Mapping[str, Curve]) -> Figure:
    """One small chart per quantity over the training steps, each with its own scale.

    Args:
        curves: Steps and values by the quantity's name; values that are not finite are left out.
    """
    columns = min(3, max(1, len(curves)))
    rows = max(1, math.ceil(len(curves) / columns))
    figure = Figure(figsize=(3.4 * columns, 2.3 * rows), layout="constrained")
    for index, (name, (steps, values)) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(rows, columns, index)
        points = np.array([steps, values], dtype=np.float64)
        points = points[:, np.isfinite(points).all(axis=0)]
        axes.plot(
            *points, color=BLUE, linewidth=1.2, marker="o" if points.shape[1] < 20 else "", markersize=3
        )
        axes.set_title(name, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        if index > len(curves) - columns:
            axes.set_xlabel("step", fontsize=8)
        axes.grid(visible=True, linewidth=0.4, alpha=0.6)
        plain(axes)
    return figure


def spreads_figure(bars: Mapping[str, Spread], label: str) -> Figure:
    """Bars of mean scores with error bars of one standard deviation.

    Args:
        bars: The score by the bar's name, from top to bottom; an undefined score has no bar.
        label: Label of the axis.
    """
    names = [textwrap.fill(name, LETTERS, subsequent_indent="  ") for name in bars]
    lines = max(name.count("\n") + 1 for name in names)
    figure = Figure(figsize=(8, 0.9 + (0.19 + 0.13 * lines) * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(bars))
    means = [100 * one.mean for one in bars.values()]
    axes.barh(rows, np.nan_to_num(means), height=0.65, color=BLUE)
    for row, one in zip(rows, bars.values(), strict=True):
        if np.isfinite(one.deviation):
            axes.errorbar(
                100 * one.mean, row, xerr=100 * one.deviation, color="black", capsize=3, linewidth=1
            )
        end = 100 * np.nansum([one.mean, one.deviation])
        axes.annotate(str(one), (end, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1.25 * max([1.0, *np.nan_to_num(means)]))  # room for the numbers
    axes.set_xlabel(label, fontsize=9)
    plain(axes)
    axes.tick_params(axis="y", length=0)
    return figure


def _heat_map(values: NDArray[Any], names: Sequence[str], *, decimals: int, maximum: float = 1) -> Figure:
    """Square heat map from 0 to `maximum`, with a number in each cell, or a dash, up to `NUMBERED` names."""
    numbered = len(names) <= NUMBERED
    side = max(2.2 + (0.72 if numbered else 0.12) * len(names), 4.4)  # not narrower than the title
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["Blues"].with_extremes(bad="#dddddd")
    drawn = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=0, vmax=maximum)
    for (row, column), value in np.ndenumerate(values) if numbered else ():
        text = "–" if np.isnan(value) else f"{value:.{decimals}f}"  # noqa: RUF001 - a dash for no value
        shade = "white" if value > 0.6 * maximum else "black"
        axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=9)
    ticks = range(len(names))
    turned, size = (35, 9) if numbered else (90, 6)
    axes.set_xticks(ticks, names, rotation=turned, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    return figure


def plain(axes: Axes) -> None:
    """Removes the upper and right borders of a chart, and makes its numbers small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
