"""Rows of the results table: `scores.json` of each scored stage, for the report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ome.damage import named_if_damaged
from ome.distributed.collectives import is_rank_zero
from ome.files import read_json, write_json
from ome.scoring.scores import Scores
from ome.scoring.tables import csv_table, percent

NAME = "scores.json"


@dataclass(frozen=True)
class Row:
    """One row of the results table.

    Attributes:
        name: Name of the result that was scored, e.g. `pseudo mask`.
        scored_on: Split and unit, e.g. `train tiles` or `test scenes`.
        scores: The scores.
        fraction: Fraction of the reference pixels that was scored; below 1 if a mask has pixels without a
            class.
        trained_on: What a segmenter was trained on, if not on all training tiles, e.g. `10 of 200 tiles`.
    """

    name: str
    scored_on: str
    scores: Scores
    fraction: float = 1.0
    trained_on: str = ""

    @property
    def note(self) -> str:
        """What must be said beside a comparison with the row; empty if there is nothing."""
        return f"{self.name} was trained on {self.trained_on}" if self.trained_on else ""

    @property
    def where(self) -> str:
        """The scored data with its fraction, e.g. `train tiles, 83.1 % of the pixels`."""
        part = "" if self.fraction == 1 else f", {100 * self.fraction:.1f} % of the pixels"
        return f"{self.scored_on}{part}"


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Writes the rows of a stage, on rank 0 only."""
    if not is_rank_zero():
        return
    content = [
        {
            "name": row.name,
            "scored_on": row.scored_on,
            "fraction": row.fraction,
            "scores": row.scores.to_dict(),
            **({"trained_on": row.trained_on} if row.trained_on else {}),
        }
        for row in rows
    ]
    write_json(folder / NAME, content)


def read_rows(folder: Path) -> list[Row]:
    """Reads the rows of a stage; an empty list if there were no reference masks.

    Raises:
        DamagedError: Their file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return []
    with named_if_damaged(path):
        return [
            Row(
                row["name"],
                row["scored_on"],
                Scores.from_dict(row["scores"]),
                row["fraction"],
                row.get("trained_on", ""),
            )
            for row in read_json(path, list)
        ]


def variant_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `csv_table` with a last column, the scored pixels in percent."""
    header, body = csv_table({row.name: row.scores for row in rows})
    return [*header, "pixels"], [[*line, percent(row.fraction)] for line, row in zip(body, rows, strict=True)]
