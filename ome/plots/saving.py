"""Saves figures as PNG and PDF files."""

from pathlib import Path
from typing import Any, BinaryIO, Final

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from ome.files import save_atomically

DPI: Final = 150


def save_figure(path: Path, figure: Figure) -> None:
    """Writes a figure as PNG to `path`, and as PDF beside it; see `save_png` and `save_pdf`."""
    save_png(path, figure)
    save_pdf(path.with_suffix(".pdf"), figure)


def save_png(path: Path, figure: Figure) -> None:
    """Writes a figure as PNG; the same figure gives the same bytes."""
    save_atomically(path, lambda to: draw(figure, to, dpi=DPI, metadata={"Software": None}))


def save_pdf(path: Path, figure: Figure) -> None:
    """Writes a figure as PDF with text that can be edited; the same figure gives the same bytes."""
    undated = dict.fromkeys(("CreationDate", "Creator", "Producer"))
    save_atomically(path, lambda to: draw(figure, to, format="pdf", metadata=undated))


def draw(figure: Figure, to: Path | BinaryIO, **options: Any) -> None:  # noqa: ANN401 - matplotlib's own
    """Writes a figure with names as they are: what is between two $ is no formula."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with rc_context({"pdf.fonttype": 42, "text.parse_math": False}):
        figure.savefig(to, **options)
