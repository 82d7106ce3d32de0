"""The charts of a report as PDF files, for papers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ome.files import read_json
from ome.pipeline.layout import TAG_SUMMARY
from ome.plots.ablation_figures import bars_figure, calibration_figure
from ome.plots.figures import confusion_figure, cooccurrence_figure, curves_figure, tag_counts_figure
from ome.plots.saving import save_pdf
from ome.report.contents import read_cooccurrence
from ome.report.histories import training_curves
from ome.scoring.rows import Row


def write_figures(
    folder: Path,
    inputs: Mapping[str, Path],
    rows: Sequence[Row],
    compared: Sequence[Row],
    errors: Mapping[str, NDArray[np.int64]],
) -> None:
    """Writes a PDF for each chart that has data.

    Args:
        folder: Folder of the PDF files.
        inputs: Folders of the finished stages by name, `labels` among them.
        rows: All scores.
        compared: The rows whose confusion matrices are drawn.
        errors: Sums of `error_counts` by criterion.
    """
    names, matrix = read_cooccurrence(inputs["labels"])
    summary = read_json(inputs["labels"] / TAG_SUMMARY)
    figures = {
        "co-occurrence": cooccurrence_figure(matrix, names),
        "tags": tag_counts_figure(names, summary["tiles_with_class"], summary["dropped_for_class"]),
    }
    if rows:
        figures["scores"] = bars_figure({row.name: row.scores.miou for row in rows})
    if errors:
        figures["errors by weight"] = calibration_figure(errors)
    figures |= {
        f"confusion {row.name}": confusion_figure(row.scores.matrix, row.scores.names) for row in compared
    }
    figures |= {f"training {name}": curves_figure(curves) for name, curves in training_curves(inputs).items()}
    for name, figure in figures.items():
        words = re.findall(r"[\w-]+", name)  # LaTeX accepts neither spaces nor brackets
        save_pdf(folder / f"{'_'.join(words)}.pdf", figure)
