"""A row of a table of tags: a name, a window or none, and the tags."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from ome.data.names import FORMULA_ERROR, IMAGE_COLUMNS, SEPARATORS, SHOWS_NONE, TOO_SMALL, check_name
from ome.data.raw_source import image_name
from ome.data.scene_index import SPLITS
from ome.data.tiles import Tile
from ome.errors import UserError

Form = Literal["columns", "listed", "windows"]
"""`columns`: row per image, column per class. `listed`: tag names in one cell. `windows`: row per window."""

# What people and pandas write for 0 and 1.
_MEANING: Final = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "x": 1}


class TagRow(NamedTuple):
    """One row.

    Attributes:
        line: Its line in the file.
        image: Name of the image without its suffix.
        written: The name as it is written in the file.
        tile: The window; None for the whole image.
        split: `train`, `val` or `test`; empty if the table does not say.
        kept: Whether the classifier trains on it; None if the table does not say.
        tags: Names of the classes in it.
        too_small: Those of them that the classifier does not learn from.
        shows_none: Whether stage labels has written that it shows none of the classes.
        rest: Cells of columns that ome does not use, by name.
    """

    line: int
    image: str
    written: str
    tile: Tile | None
    split: str
    kept: bool | None
    tags: frozenset[str]
    too_small: frozenset[str] = frozenset()
    shows_none: bool = False
    rest: Mapping[str, str] = MappingProxyType({})


def image_row(line: int, cells: dict[str, str], where: str, names: Sequence[str], form: Form) -> TagRow:
    """Parses a row that describes an image; `where` is its file and line for error messages.

    Raises:
        UserError: A cell is wrong.
    """
    written = cells["image"]
    if not written:
        raise UserError(f"{where}: the image has no name")
    image = _name(written, f"{where}: the image")
    tags = _tags(cells, where, names, form)
    known = (*IMAGE_COLUMNS, *names)
    rest = {name: cell for name, cell in cells.items() if name not in known}
    return TagRow(line, image, written, None, _split(cells, where), _kept(cells, where), tags, rest=rest)


def _name(written: str, what: str, *, suffix: bool = True) -> str:
    """Name of an image or scene as written in a table; `suffix` tells whether one is left out.

    Raises:
        UserError: It is no name of a file, e.g. has a folder before it, as in tables of other programs.
    """
    bare = re.split(r"[/\\]", written)[-1]
    if bare not in {"", written} and not FORMULA_ERROR.fullmatch(written):  # #N/A has no folder
        raise UserError(f"{what} {written!r} has a folder in it: leave it out, as in {bare}")
    return check_name(image_name(written) if suffix else written, what)


def window_row(line: int, cells: dict[str, str], where: str, names: Sequence[str], form: Form) -> TagRow:
    """Parses a row that describes a window of an image; see `image_row`."""
    # Tables written by ome have a column `tile`, and scenes without suffixes.
    scene = _name(cells["scene"], f"{where}: the scene", suffix="tile" not in cells)
    tile = Tile(scene, *(_pixels(cells, name, where) for name in ("row", "column", "height", "width")))
    if min(tile.height, tile.width) < 1:
        raise UserError(f"{where}: height and width must be at least 1")
    if cells.get("tile", tile.name) != tile.name:
        raise UserError(f"{where}: tile is {cells['tile']!r}, but its scene, row and column give {tile.name}")
    tags = _tags(cells, where, names, form)
    too_small = frozenset(listed_tags(cells.get(TOO_SMALL, "")))
    if wrong := sorted(too_small - tags):
        raise UserError(f"{where}: {TOO_SMALL} names {wrong[0]}, which is not a tag of the tile")
    shows_none = bool(cells.get(SHOWS_NONE) and _zero_or_one(cells, SHOWS_NONE, where))
    split, kept = _split(cells, where), _kept(cells, where)
    return TagRow(line, scene, scene, tile, split, kept, tags, too_small, shows_none)


def _tags(cells: dict[str, str], where: str, names: Sequence[str], form: Form) -> frozenset[str]:
    if form == "listed":
        return frozenset(listed_tags(cells["tags"]))
    return frozenset(name for name in names if cells[name] and _zero_or_one(cells, name, where))


def listed_tags(cell: str) -> list[str]:
    """The names of classes in a cell."""
    return [tag.strip() for tag in re.split(f"[{SEPARATORS}]", cell) if tag.strip()]


def _split(cells: dict[str, str], where: str) -> str:
    split = cells.get("split", "")
    if split and split not in SPLITS:
        raise UserError(f"{where}: split is {split!r}; give one of {', '.join(SPLITS)}")
    return split


def _kept(cells: dict[str, str], where: str) -> bool | None:
    return bool(_zero_or_one(cells, "kept", where)) if cells.get("kept") else None


def _pixels(cells: dict[str, str], name: str, where: str) -> int:
    if not (cells[name].isdecimal() and len(cells[name]) < 10):
        raise UserError(f"{where}: {name} is {cells[name]!r}; give whole pixels")
    return int(cells[name])


def _zero_or_one(cells: dict[str, str], name: str, where: str) -> int:
    value = _MEANING.get(cells[name].casefold())
    if value is None:
        raise UserError(f"{where}: {name} is {cells[name]!r}; give 0 or 1")
    return value
