"""What a W&B run shows of a finished stage: counts, scores, tables and pictures."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb
from PIL import Image

from ome.files import read_csv
from ome.pipeline.artifacts import Artefact
from ome.plots.figures import confusion_figure
from ome.plots.saving import DPI, draw
from ome.scoring.rows import Row, read_rows

if TYPE_CHECKING:
    from wandb import Image as WandbImage
    from wandb import Table

LONGEST_TABLE = 500
"""Maximum number of rows of a table that is shown, so that lists of all tiles are not."""


def numbers(counts: Mapping[str, Any]) -> dict[str, float]:
    """The counts of a manifest that are numbers, on one level."""
    plain: dict[str, float] = {}
    for name, value in counts.items():
        if isinstance(value, Mapping):
            plain |= {f"{name}.{key}": number for key, number in numbers(value).items()}
        elif isinstance(value, int | float):
            plain[name] = value
    return plain


def tables(folder: Path) -> dict[str, Any]:
    """Scores, confusion matrices as tables and as pictures, and the stage's short CSV files."""
    shown: dict[str, Any] = {}
    if rows := read_rows(folder):
        header: list[str | int] = ["scored", "on", "mIoU", "mF1", "OA", *rows[0].scores.names]
        shown["scores"] = wandb.Table(columns=header, data=[_score_line(row) for row in rows])
        shown |= {f"mIoU/{row.name}": row.scores.miou for row in rows}
        shown |= {f"confusion/{row.name}": _confusion(row) for row in rows}
        shown |= {f"pictures/confusion/{row.name}": _confusion_picture(row) for row in rows}
    for path in sorted(folder.glob("*.csv")):
        lines = read_csv(path)
        if 0 < len(lines) <= LONGEST_TABLE:
            data = [list(line.values()) for line in lines]
            shown[path.stem] = wandb.Table(columns=list(lines[0]), data=data)
    return shown


def _score_line(row: Row) -> list[Any]:
    scores = row.scores
    return [row.name, row.where, scores.miou, scores.mf1, scores.oa, *map(float, scores.iou)]


def _confusion(row: Row) -> "Table":
    names = row.scores.names
    lines = [[name, *counts] for name, counts in zip(names, row.scores.matrix.tolist(), strict=True)]
    return wandb.Table(columns=["reference", *names], data=lines)


def _confusion_picture(row: Row) -> "WandbImage":
    stream = BytesIO()
    draw(confusion_figure(row.scores.matrix, row.scores.names), stream, dpi=DPI)
    return wandb.Image(Image.open(stream), caption=f"{row.name}, {row.where}")


def pictures(finished: Artefact) -> dict[str, Any]:
    """The pictures of the stage, without the report's curves, which W&B draws itself."""
    pattern = "**/*.png" if finished.manifest.stage == "report" else "*.png"
    paths = [path.relative_to(finished.folder) for path in sorted(finished.folder.glob(pattern))]
    return {
        f"pictures/{path.with_suffix('')}": wandb.Image(str(finished.folder / path))
        for path in paths
        if path.parts[0] != "curves"
    }
