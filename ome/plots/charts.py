"""Charts of the report: positions of bars, lines, ticks and cells, which the page's template draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ome.plots.figures import Curve
from ome.progress import duration

WIDTH, HEIGHT = 320, 180
"""Size of a line chart in SVG units, which are pixels if the page is wide enough."""

LEFT, RIGHT, TOP, BOTTOM = 50, 310, 10, 156
"""Edges of the area in which lines are drawn."""

MOST_POINTS: Final = 120
"""Largest number of points of a line; longer curves are thinned evenly."""

FEW_POINTS: Final = 20
"""The points of lines with fewer points are marked."""

HEAT_LEVELS: Final = 10

_DASH = "–"  # noqa: RUF001 - a dash for no value


@dataclass(frozen=True)
class Bar:
    """A horizontal bar.

    Attributes:
        label: Name of the value.
        text: The value as text.
        length: Length in [0, 1], as a fraction of the longest possible bar.
        hatched: Length of a hatched part that follows.
    """

    label: str
    text: str
    length: float
    hatched: float = 0.0


@dataclass(frozen=True)
class Tick:
    """A position on an axis and its number."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, and its points as (x, y)."""

    name: str
    points: list[tuple[float, float]]

    @property
    def path(self) -> str:
        """The points in SVG syntax."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)

    @property
    def dots(self) -> list[tuple[float, float]]:
        """The marked points: all points, if there are few."""
        return self.points if len(self.points) < FEW_POINTS else []


@dataclass(frozen=True)
class LineChart:
    """A chart of one or more lines over a common axis.

    Attributes:
        title: Title of the chart.
        lines: The lines, in units of `WIDTH` and `HEIGHT`.
        x_ticks: Ticks below the chart.
        y_ticks: Ticks to the left of the chart.
    """

    title: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True)
class Cell:
    """A cell of a heat map: its number, and its shade from 0 to `HEAT_LEVELS`, None if it is undefined."""

    text: str
    level: int | None


def percent_bars(values: Mapping[str, float]) -> list[Bar]:
    """Bars of fractions in [0, 1], as percent; nan becomes a dash without a bar."""
    return [
        Bar(name, _DASH if np.isnan(value) else f"{100 * value:.1f} %", float(np.nan_to_num(value)))
        for name, value in values.items()
    ]


def duration_bars(seconds: Mapping[str, float]) -> list[Bar]:
    """Bars of durations in seconds, of which the longest has length 1."""
    longest = max([*seconds.values(), 1e-9])
    return [Bar(name, duration(value), value / longest) for name, value in seconds.items()]


def line_chart(title: str, curves: Mapping[str, Curve], *, percent: bool = False) -> LineChart:
    """Scales curves to the area of a chart.

    Args:
        title: Title of the chart.
        curves: Steps and values by name; values that are not finite are left out.
        percent: Whether the axis of the values is 0 to 100; otherwise it covers 0 and all values.
    """
    points = {name: _finite(*curve) for name, curve in curves.items()}
    steps, values = np.concatenate([*points.values(), np.empty((2, 0))], axis=1)
    xs = _ticks(steps, whole=bool((steps % 1 == 0).all()))
    ys = np.linspace(0, 100, 6) if percent else _ticks(values, whole=False)

    def place(values: NDArray[np.float64], ticks: NDArray[np.float64], low: int, high: int) -> Any:  # noqa: ANN401
        return low + (values - ticks[0]) / (ticks[-1] - ticks[0]) * (high - low)

    lines = [
        Line(name, list(zip(place(x, xs, LEFT, RIGHT), place(y, ys, BOTTOM, TOP), strict=True)))
        for name, (x, y) in points.items()
    ]
    x_ticks = [Tick(place(value, xs, LEFT, RIGHT), f"{value:,g}") for value in xs]
    heights = [place(value, ys, BOTTOM, TOP) for value in ys]
    y_ticks = [Tick(at, text) for at, text in zip(heights, _short(ys), strict=True)]
    return LineChart(title, lines, x_ticks, y_ticks)


def heat_cells(matrix: NDArray[Any], *, decimals: int, maximum: float = 1) -> list[list[Cell]]:
    """The cells of a heat map from 0 to `maximum`, row by row; nan becomes a dash without a shade."""
    return [
        [
            Cell(_DASH, None)
            if np.isnan(value)
            else Cell(f"{value:.{decimals}f}", round(HEAT_LEVELS * min(1.0, value / maximum)))
            for value in row
        ]
        for row in matrix.tolist()
    ]


def _finite(steps: Sequence[float], values: Sequence[float]) -> NDArray[np.float64]:
    """The finite points of a curve, (2, N), thinned to `MOST_POINTS`."""
    points = np.array([steps, values], dtype=np.float64)
    points = points[:, np.isfinite(points).all(axis=0)]
    kept = np.linspace(0, points.shape[1] - 1, min(MOST_POINTS, points.shape[1])).round().astype(int)
    return points[:, kept]


def _short(values: NDArray[np.float64]) -> list[str]:
    """The numbers of an axis in one notation: at most six characters each, or scientific, e.g. `1.5e-4`."""
    texts = [f"{value:.0f}" if value.is_integer() else f"{value:.3g}" for value in map(float, values)]
    if all(len(text) <= 6 and "e" not in text for text in texts):
        return texts
    rounded = {digits: [float(f"{value:.{digits}e}") for value in values] for digits in range(3)}
    digits = next((count for count, of in rounded.items() if np.allclose(values, of, rtol=1e-6, atol=0)), 2)
    texts = [f"{value:.{digits}e}".replace("e-0", "e-").replace("e+0", "e") for value in values]
    return ["0" if value == 0 else text for value, text in zip(values, texts, strict=True)]


def _ticks(values: NDArray[np.float64], *, whole: bool) -> NDArray[np.float64]:
    """At least two round numbers whose range has the values and 0: an axis without 0 exaggerates noise."""
    with_zero = np.append(values, 0.0)
    low, high = float(with_zero.min()), float(with_zero.max())
    if low == high:
        high = 1.0
    return np.asarray(MaxNLocator(4, integer=whole).tick_values(low, high), dtype=np.float64)
