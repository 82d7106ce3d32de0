"""Suggested tags of a classifier: the table that `stage=suggest` writes and the tagging page reads."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ome.data.sheets import read_sheet
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import write_csv

COLUMNS = ("scene", "row", "column", "height", "width", "uncertainty")
"""Columns before those of the classes."""


class Suggestion(NamedTuple):
    """A classifier's prediction for one tile.

    Attributes:
        uncertainty: In [0, 1], 1 for most uncertain.
        probabilities: Probability of each class in the tile, in [0, 1], by name.
    """

    uncertainty: float
    probabilities: dict[str, float]


def write_suggestions(
    path: Path, names: Sequence[str], rows: Iterable[tuple[Tile, float, Sequence[float]]]
) -> None:
    """Writes the table atomically: each tile with its uncertainty and the probabilities of the classes."""
    lines = (
        [tile.scene, tile.row, tile.column, tile.height, tile.width]
        + [f"{value:.4f}" for value in (uncertainty, *probabilities)]
        for tile, uncertainty, probabilities in rows
    )
    write_csv(path, [*COLUMNS, *names], lines)


def read_suggestions(path: Path) -> dict[Tile, Suggestion]:
    """Reads the table.

    Raises:
        UserError: It is missing, or was not written by ome.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: run ome suggest RUN, and give runs/NAME/suggest/suggestions.csv"
        )
    sheet = read_sheet(path)
    if missing := [name for name in COLUMNS if name not in sheet.header]:
        raise UserError(f"{path}, line 1: no column {missing[0]}; run ome suggest RUN again")
    sheet.check_lengths()
    names = [name for name in sheet.header if name not in COLUMNS]
    suggestions = {}
    for line, row in sheet.rows:
        try:
            tile = Tile(row["scene"], *(int(row[name]) for name in ("row", "column", "height", "width")))
            values = [float(row[name]) for name in ("uncertainty", *names)]
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}; run ome suggest RUN again") from error
        if not all(0 <= value <= 1 for value in values):
            raise UserError(f"{path}, line {line}: a value is not in 0..1; run ome suggest RUN again")
        suggestions[tile] = Suggestion(values[0], dict(zip(names, values[1:], strict=True)))
    return suggestions
