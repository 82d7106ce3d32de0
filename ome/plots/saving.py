"""Saves figures as PNG and PDF files."""

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

from matplotlib import font_manager, rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from ome.files import save_atomically
from ome.progress import console

DPI: Final = 150

FONTS: Final = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "PingFang SC", "Noto Sans", "Noto Sans Devanagari", "Arial Unicode MS"),
)
"""Fonts that are tried, where they are installed, for letters that matplotlib's own lacks."""

_said: Final = set[str]()


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
    """Writes a figure with names as they are: in any script, and what is between two $ is no formula.

    Says once which letters no font has.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        if not text.get_text().isascii():
            text.set_fontfamily(["DejaVu Sans", *_installed()])
    with (
        rc_context({"pdf.fonttype": 42, "text.parse_math": False}),
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.filterwarnings("always", message="Glyph ")
        figure.savefig(to, **options)
    missing = dict[str, None]()
    for warning in said:
        if glyph := re.match(r"Glyph (\d+) ", str(warning.message)):
            missing[chr(int(glyph[1]))] = None
        else:
            warnings.warn(warning.message, stacklevel=2)
    if letters := "".join(letter for letter in missing if letter not in _said):
        _said.update(letters)
        line = f"no installed font has {letters}, which figures lack: install one, such as Noto Sans CJK"
        console.print(line, style="yellow", markup=False)


@cache
def _installed() -> list[str]:
    names = {*font_manager.get_font_names()}
    return [name for name in FONTS if name in names]
