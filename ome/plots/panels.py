"""Pictures of tiles side by side, for papers, notebooks and W&B; `thumbnails` draws the pictures."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ome.files import save_atomically
from ome.geo.grid import RGB
from ome.plots.letters import letter_of
from ome.plots.thumbnails import Layer, drawn, heat

CELL: Final = 288
"""Longer side of each picture in pixels; smaller tiles are enlarged by a whole factor."""

GAP: Final = 8
GREY: Final = "#888888"
LINE: Final = 20

Swatch = tuple[Image.Image, str]
"""A patch of a legend and its text."""


def panel(rows: Sequence[tuple[str, Sequence[Layer]]], legend: Sequence[Swatch] = ()) -> Image.Image:
    """Draws tiles in rows and their pictures in columns, one per name.

    Args:
        rows: Title and pictures of each tile.
        legend: Legend below the rows, see `class_legend` and `heat_legend`.

    Returns:
        Mode `RGB`.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError("a panel needs at least one row")
    columns = list(dict.fromkeys(layer.name for _, layers in rows for layer in layers))
    width = GAP + len(columns) * (CELL + GAP)
    strips = [_side_by_side({name: _text(name, CELL) for name in columns}, columns)]
    for title, layers in rows:
        strips.append(_side_by_side({"": _text(title, width)}, [""], width))
        strips.append(_side_by_side({layer.name: _framed(layer) for layer in layers}, columns))
    strips.append(_legend(legend, width))
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips) + GAP), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def save_panel(path: Path, rows: Sequence[tuple[str, Sequence[Layer]]], legend: Sequence[Swatch]) -> None:
    """Writes a panel as PNG, atomically; the same pictures give the same bytes."""
    save_atomically(path, panel(rows, legend).save)


def class_legend(classes: Mapping[str, RGB]) -> list[Swatch]:
    """The classes by letter and colour, and black for pixels without a class."""
    named = [(f"{letter_of(index)} {name}", rgb) for index, (name, rgb) in enumerate(classes.items())]
    return [
        (Image.new("RGB", (LINE, LINE // 2), rgb), text) for text, rgb in [*named, ("no class", (0, 0, 0))]
    ]


def heat_legend() -> list[Swatch]:
    """The colours of a heat map from 0 to 1."""
    values = np.tile(np.linspace(0, 1, 4 * LINE, dtype=np.float32), (LINE // 2, 1))
    return [(Image.fromarray(heat(values).round().astype(np.uint8)), "from 0 to 1")]


def _framed(layer: Layer) -> Image.Image:
    """The picture with a frame, since parts of it may be as white as the sheet."""
    return ImageOps.expand(drawn(layer.picture, CELL, CELL).convert("RGB"), 1, GREY)


def _side_by_side(
    pictures: Mapping[str, Image.Image], columns: Sequence[str], width: int | None = None
) -> Image.Image:
    """One strip with each picture in its column."""
    height = max(picture.height for picture in pictures.values())
    strip = Image.new("RGB", (width or GAP + len(columns) * (CELL + GAP), height + GAP // 2), "white")
    for place, name in enumerate(columns):
        if name in pictures:
            strip.paste(pictures[name], (GAP + place * (CELL + GAP), 0))
    return strip


def _legend(legend: Sequence[Swatch], width: int) -> Image.Image:
    """The patches with their texts, wrapped into lines."""
    strip = Image.new("RGB", (width, LINE * (len(legend) + 1)), "white")
    left, top = GAP, GAP
    for patch, text in legend:
        label = _text(text, width)
        needed = patch.width + GAP + round(_font().getlength(text)) + 2 * GAP
        if left > GAP and left + needed > width:
            left, top = GAP, top + LINE
        strip.paste(patch, (left, top + (LINE - patch.height) // 2))
        ImageDraw.Draw(strip).rectangle(
            (left, top + LINE // 4, left + patch.width, top + 3 * LINE // 4), outline=GREY
        )
        strip.paste(label, (left + patch.width + GAP, top))
        left += needed
    return strip.crop((0, 0, width, top + LINE if legend else 0))


def _text(text: str, width: int) -> Image.Image:
    """A text in lines of at most `width` pixels; a word that is wider is cut off."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font().getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    canvas = Image.new("RGB", (width, LINE * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((0, LINE * number), line, "black", _font())
    return canvas


@cache
def _font() -> ImageFont.FreeTypeFont:
    """The font of the figures; Pillow's default font has only Latin letters."""
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 14)
