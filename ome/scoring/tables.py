"""Tables of segmentation scores of several methods: for the terminal, as markdown and as CSV."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ome.errors import UserError
from ome.scoring.scores import Scores

MEANS: Final = ("mIoU", "mF1", "OA")
"""Columns of the scores over all classes, before those of the IoU of each class."""

_ESCAPED: Final = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)

_MARKDOWN: Final = str.maketrans({letter: f"\\{letter}" for letter in "\\|<*`"})
"""What would end a cell, begin an HTML tag or change the type of a name in markdown."""


class RatioOf(NamedTuple):
    """Two rows whose ratio of mIoU, weak / full, is shown.

    Attributes:
        weak: Name of the first.
        full: Name of the second.
        note: What is said beside the ratio, see `Row.note`; empty if there is nothing.
    """

    weak: str
    full: str
    note: str = ""


def miou_ratio(rows: Mapping[str, Scores], name: str, full: str) -> float:
    """Ratio of the mIoU of two rows, e.g. of weak supervision and pixel supervision.

    Args:
        rows: Scores by row name.
        name: The row of the numerator.
        full: The row of the denominator.

    Returns:
        mIoU of `name` / mIoU of `full`, not negative; nan if either is nan or the second is 0.

    Raises:
        UserError: A row does not exist.
    """
    for row_name in (name, full):
        if row_name not in rows:
            raise UserError(f"no scores for {row_name!r}, there are: {', '.join(rows) or 'none'}")
    reference = rows[full].miou
    return rows[name].miou / reference if reference else float("nan")


def score_table(rows: Mapping[str, Scores], *, title: str = "", ratio_of: RatioOf | None = None) -> Table:
    """The scores in percent for a terminal.

    Unlike in the files, methods are columns and scores are rows, so that tables with many or long class names
    fit into 80 characters.

    Args:
        rows: Scores by row name, all of the same classes.
        title: Title above the table.
        ratio_of: If set, a line with the ratio of the mIoU of these rows is added.

    Returns:
        mIoU, mF1, OA and the IoU of each class; `-` for undefined scores.

    Raises:
        UserError: `ratio_of` names a row that does not exist.
        ValueError: There is no row, or the rows have different classes.
    """
    caption = escape(_ratio_line(rows, ratio_of)) if ratio_of else None
    table = Table(title=escape(title) or None, caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    labels, *methods = _cells(rows)
    table.add_column("", no_wrap=True)
    for name, *_ in methods:
        stacked = Text(name.replace(" ", "\n").replace("-", "-\n"))
        table.add_column(
            stacked, justify="right", vertical="bottom", min_width=len("100.00"), overflow="fold"
        )
    for index, label in enumerate(labels[1:], start=1):
        if index == len(MEANS) + 1:
            table.add_section()
            table.add_row("IoU")
        table.add_row(escape(label), *(cells[index] for cells in methods))
    return table


def markdown_table(rows: Mapping[str, Scores], *, ratio_of: RatioOf | None = None) -> str:
    """The scores as markdown; arguments and errors as for `score_table`."""
    header, *body = _cells(rows)
    ratio = f"\n{_ratio_line(rows, ratio_of)}\n" if ratio_of else ""
    return markdown_lines(header, body, texts=1) + ratio


def csv_table(
    rows: Mapping[str, Scores], *, ratio_of: RatioOf | None = None
) -> tuple[list[str], list[list[str]]]:
    """The scores as header and rows for `ome.files.write_csv`; arguments and errors as for `score_table`.

    The ratio is a last row, named `weak / full`, with only mIoU filled in.
    """
    header, *body = _cells(rows)
    if ratio_of:
        name, ratio = _ratio(rows, ratio_of)
        name += f" ({ratio_of.note})" if ratio_of.note else ""
        body.append([name, ratio, *[""] * (len(header) - 2)])
    return header, body


def percent(value: float) -> str:
    """A fraction in percent with two decimals, without the sign `%`; `-` for nan."""
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _cells(rows: Mapping[str, Scores]) -> list[list[str]]:
    """Header and rows as texts."""
    classes = {scores.names for scores in rows.values()}
    if len(classes) != 1:
        raise ValueError(f"rows must be of one set of classes, not {len(classes)}: {sorted(classes)}")
    header = ["", *MEANS, *classes.pop()]
    return [header] + [
        [name, *(percent(value) for value in (scores.miou, scores.mf1, scores.oa, *scores.iou))]
        for name, scores in rows.items()
    ]


def _ratio(rows: Mapping[str, Scores], ratio_of: RatioOf) -> tuple[str, str]:
    """Its name, and its value in percent."""
    weak, full, _ = ratio_of
    return f"{weak} / {full}", percent(miou_ratio(rows, weak, full))


def _ratio_line(rows: Mapping[str, Scores], ratio_of: RatioOf) -> str:
    line = "{}: {} % of the mIoU".format(*_ratio(rows, ratio_of))
    return f"{line}; {ratio_of.note}" if ratio_of.note else line


def markdown_lines(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 3) -> str:
    """A table in markdown, whose first `texts` columns are texts and whose other columns are numbers."""
    first, *others = ([cell.translate(_MARKDOWN) for cell in cells] for cells in (header, *rows))
    lines = [first, ["---"] * texts + ["---:"] * (len(header) - texts), *others]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_lines(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 3) -> str:
    """The table as a LaTeX tabular with the rules of the package booktabs."""
    body = [[cell.translate(_ESCAPED).replace("±", r"$\pm$") for cell in line] for line in (header, *rows)]
    head, *others = (f"{' & '.join(line)} \\\\" for line in body)
    columns = "l" * texts + "r" * (len(header) - texts)
    rules = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head, "\\midrule", *others, "\\bottomrule"]
    return "\n".join([*rules, "\\end{tabular}", ""])
