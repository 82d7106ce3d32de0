"""Scores as artefacts: `scores.json` of each scored stage, for the report."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ome.distributed.collectives import is_rank_zero
from ome.files import read_json, write_json
from ome.scoring.scores import Scores

NAME = "scores.json"


@dataclass(frozen=True)
class Row:
    """One row of the results table.

    Attributes:
        name: What was scored, e.g. `pseudo mask`.
        scored_on: Where: the split and the unit, e.g. `train tiles` or `test scenes`.
        scores: The scores.
        fraction: Part of the reference's pixels that was scored; below 1 where a mask leaves some undecided.
    """

    name: str
    scored_on: str
    scores: Scores
    fraction: float = 1.0

    @property
    def where(self) -> str:
        """What was scored of what, e.g. `train tiles, 83.1 % of the pixels`."""
        return (
            self.scored_on
            if self.fraction == 1
            else f"{self.scored_on}, {100 * self.fraction:.1f} % of the pixels"
        )


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Writes the rows of a stage, on rank 0 only."""
    if not is_rank_zero():
        return
    content = [
        {"name": row.name, "scored_on": row.scored_on, "share": row.fraction, "scores": row.scores.to_dict()}
        for row in rows
    ]
    write_json(folder / NAME, content)


def read_rows(folder: Path) -> list[Row]:
    """Reads the rows of a stage; none where the stage could not score (no reference masks)."""
    path = folder / NAME
    if not path.exists():
        return []
    return [
        Row(row["name"], row["scored_on"], Scores.from_dict(row["scores"]), row.get("share", 1.0))
        for row in read_json(path)
    ]
