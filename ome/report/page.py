"""The report's page: one self-contained HTML file that makes no requests."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ome.files import write_text
from ome.geo.grid import RGB
from ome.plots import charts
from ome.plots.letters import letter_of
from ome.plots.thumbnails import encode
from ome.progress import track
from ome.report.layered_tiles import LayeredTile

MOST_PICTURE_BYTES: Final = 4_000_000
"""Largest size of all pictures together; each may have an equal part, and larger ones are downsized."""

_TEMPLATES = "templates"


@dataclass(frozen=True)
class LegendEntry:
    """A class in a legend: its letter in the masks, its name, and its colour as `#rrggbb`."""

    letter: str
    name: str
    colour: str


def legend(classes: Mapping[str, RGB]) -> list[LegendEntry]:
    """The classes as they are shown in masks, and black for pixels without a class."""
    entries = [
        LegendEntry(letter_of(index), name, "#{:02x}{:02x}{:02x}".format(*colour))
        for index, (name, colour) in enumerate(classes.items())
    ]
    return [*entries, LegendEntry("", "no class", "#000000")]


def encode_layered(groups: Mapping[str, Sequence[LayeredTile]]) -> dict[str, list[dict[str, Any]]]:
    """Encodes layered tiles for the template, with pictures of at most `MOST_PICTURE_BYTES` in total."""
    tiles = [tile for group in groups.values() for tile in group]
    number = sum(len(tile.layers) for tile in tiles)
    most = MOST_PICTURE_BYTES // max(number, 1)
    encoded = (_encoded(tile, most) for tile in track(tiles, "pictures of the page", len(tiles)))
    return {name: [next(encoded) for _ in group] for name, group in groups.items()}


def write_page(path: Path, content: Mapping[str, Any]) -> None:
    """Renders the template and writes the page.

    Everything in `content` is escaped. The page's content security policy allows only its own script and
    style, and no requests.

    Args:
        path: The HTML file to write.
        content: The variables of the template.
    """
    environment = Environment(
        loader=PackageLoader("ome.report", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    style, script = (
        (files("ome.report") / _TEMPLATES / name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js")
    )
    page = environment.get_template("report.html.j2").render(
        content,
        charts=charts,
        style=Markup(style),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours
        policy=_policy(style, script),
    )
    write_text(path, page)


def _breakable(name: str) -> Markup:
    """A name with possible line breaks after the underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def _policy(style: str, script: str) -> str:
    """A content security policy for exactly this style and script, and pictures inside the page."""
    kinds = [("style-src", style), ("script-src", script)]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for _, text in kinds]
    allowed = [f"{kind} 'sha256-{digest}'" for (kind, _), digest in zip(kinds, digests, strict=True)]
    return "; ".join(
        ["default-src 'none'", "img-src data:", *allowed, "base-uri 'none'", "form-action 'none'"]
    )


def _encoded(tile: LayeredTile, most: int) -> dict[str, Any]:
    layers = [{"name": layer.name, "address": encode(layer, most)} for layer in tile.layers]
    width, height = tile.layers[0].picture.size
    texts = {key: getattr(tile, key) for key in ("title", "note", "left", "right")}
    return {**texts, "width": width, "height": height, "layers": layers}
