"""Tables of segmentation scores of several methods: for the terminal, as markdown and as CSV."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ome.errors import UserError
from ome.scoring.scores import Scores

MEANS: Final = ("mIoU", "mF1", "OA")
"""Scores over all classes; the IoU of each class follows them."""

_ESCAPED: Final = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)

RatioOf = tuple[str, str]
"""Two row names: the mIoU of the first is given relative to that of the second."""


def miou_ratio(rows: Mapping[str, Scores], name: str, full: str) -> float:
    """Share of one row's mIoU that another reaches, e.g. of pixel supervision by weak supervision.

    Args:
        rows: Scores by row name.
        name: The row in question.
        full: The row it is measured against.

    Returns:
        mIoU of `name` / mIoU of `full`, not negative; nan where either is nan or the second is 0.

    Raises:
        UserError: The row does not exist.
    """
    for row_name in (name, full):
        if row_name not in rows:
            raise UserError(f"no scores for {row_name!r}, there are: {', '.join(rows) or 'none'}")
    reference = rows[full].miou
    return rows[name].miou / reference if reference else float("nan")


def score_table(rows: Mapping[str, Scores], *, title: str = "", ratio_of: RatioOf | None = None) -> Table:
    """The scores in percent for a terminal.

    Methods are its columns and scores its rows, the other way round than in the files: so that a dataset
    with many or long class names still fits 80 columns.

    Args:
        rows: Scores by row name, all of the same classes.
        title: Stands above the table.
        ratio_of: Adds a line below with the ratio of these two rows' mIoU.

    Returns:
        mIoU, mF1, OA and the IoU of each class; `-` where undefined.

    Raises:
        UserError: `ratio_of` names a row that is not there.
        ValueError: There is no row, or rows are of different classes.
    """
    caption = _ratio_line(rows, ratio_of) if ratio_of else None
    table = Table(title=title or None, caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    labels, *methods = _cells(rows)
    table.add_column("", no_wrap=True)
    for name, *_ in methods:
        stacked = name.replace(" ", "\n").replace("-", "-\n")
        table.add_column(
            stacked, justify="right", vertical="bottom", min_width=len("100.00"), overflow="fold"
        )
    for index, label in enumerate(labels[1:], start=1):
        if index == len(MEANS) + 1:
            table.add_section()
            table.add_row("IoU")
        table.add_row(label, *(cells[index] for cells in methods))
    return table


def markdown_table(rows: Mapping[str, Scores], *, ratio_of: RatioOf | None = None) -> str:
    """The same as markdown; arguments and errors as for `score_table`."""
    header, *body = _cells(rows)
    ratio = f"\n{_ratio_line(rows, ratio_of)}\n" if ratio_of else ""
    return markdown_lines(header, body, texts=1) + ratio


def csv_table(
    rows: Mapping[str, Scores], *, ratio_of: RatioOf | None = None
) -> tuple[list[str], list[list[str]]]:
    """The same as header and rows for `ome.files.write_csv`; arguments and errors as for `score_table`.

    The ratio is a last row, named `first / second`, with only mIoU filled in.
    """
    header, *body = _cells(rows)
    if ratio_of:
        ratio = percent(miou_ratio(rows, *ratio_of))
        body.append([" / ".join(ratio_of), ratio, *[""] * (len(header) - 2)])
    return header, body


def percent(value: float) -> str:
    """A share as percent with two decimals, without the sign; `-` for nan."""
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _cells(rows: Mapping[str, Scores]) -> list[list[str]]:
    """Header and one list of texts a row."""
    classes = {scores.names for scores in rows.values()}
    if len(classes) != 1:
        raise ValueError(f"rows must be of one set of classes, not {len(classes)}: {sorted(classes)}")
    header = ["", *MEANS, *classes.pop()]
    return [header] + [
        [name, *(percent(value) for value in (scores.miou, scores.mf1, scores.oa, *scores.iou))]
        for name, scores in rows.items()
    ]


def _ratio_line(rows: Mapping[str, Scores], ratio_of: RatioOf) -> str:
    return f"{' / '.join(ratio_of)}: {percent(miou_ratio(rows, *ratio_of))} % of the mIoU"


def markdown_lines(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 3) -> str:
    """A table in markdown, its first columns texts and the others numbers."""
    first, *others = ([cell.replace("|", r"\|") for cell in cells] for cells in (header, *rows))
    lines = [first, ["---"] * texts + ["---:"] * (len(header) - texts), *others]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_lines(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 3) -> str:
    """The same as a LaTeX tabular with the rules of the package booktabs."""
    body = [[cell.translate(_ESCAPED).replace("±", r"$\pm$") for cell in line] for line in (header, *rows)]
    head, *others = (f"{' & '.join(line)} \\\\" for line in body)
    columns = "l" * texts + "r" * (len(header) - texts)
    rules = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head, "\\midrule", *others, "\\bottomrule"]
    return "\n".join([*rules, "\\end{tabular}", ""])
