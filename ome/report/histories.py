"""Recorded quantities of the trainings, as curves and charts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ome.files import read_csv
from ome.pipeline.layout import HISTORY
from ome.plots.charts import LineChart, line_chart
from ome.plots.figures import Curve


def charts(inputs: Mapping[str, Path]) -> dict[str, list[LineChart]]:
    """The charts of `training_curves`, one per quantity, by training."""
    return {
        name: [line_chart(title, {title: curve}) for title, curve in curves.items()]
        for name, curves in training_curves(inputs).items()
    }


def training_curves(inputs: Mapping[str, Path]) -> dict[str, dict[str, Curve]]:
    """The curves of every training with a `history.csv`, by the name of the quantity.

    Quantities that are 0 or nan at every step are left out: losses that are switched off, and scores without
    reference masks. So are those that equal an earlier one: the sum of a single loss.

    Args:
        inputs: Folders of the finished stages by name.
    """
    by_training: dict[str, dict[str, Curve]] = {}
    for stage, folder in inputs.items():
        for path in sorted(folder.rglob(HISTORY)):
            name = " ".join([stage, *path.parent.relative_to(folder).parts]).replace("_", " ")
            drawn = by_training.setdefault(name, {})
            for title, curve in _read_curves(path).items():
                if np.nan_to_num(curve[1]).any() and curve not in drawn.values():
                    drawn[title] = curve
    return by_training


def _read_curves(history: Path) -> dict[str, tuple[list[float], list[float]]]:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in read_csv(history):
        steps, values = curves.setdefault(row["name"], ([], []))
        steps.append(int(row["step"]))
        values.append(float(row["value"]))
    return curves
