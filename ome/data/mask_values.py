"""Checks the values of reference masks against the classes and the tags, and suggests corrected settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.data.mask_meanings import NODATA_HINT, foreign_values, possible_meaning, values_in
from ome.data.prepare import scene_jobs
from ome.data.raw import RawLayout
from ome.data.raw_file import RawFile
from ome.data.scene_index import Scene, SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tag_filter import tags_of
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.errors import UserError, few
from ome.ignore import IGNORE

LISTED: Final = 3  # largest number of examples in a message

MOST: Final = 0.5
"""Largest fraction of labelled pixels that may be outside the palette."""


def check_mask_values(layout: RawLayout, raw: Path, index: SceneIndex) -> Iterator[str]:
    """Compares the values of prepared masks with the classes.

    Args:
        layout: The raw dataset.
        raw: Its folder.
        index: The prepared scenes.

    Yields:
        Lines about unknown colours, classes without a reference pixel, and a single class.

    Raises:
        UserError: Values or colours are not those of the classes, or no pixel of any mask is of a class.
    """
    masked = [scene for scene in index.scenes if scene.mask is not None]
    if not masked:
        return
    pixels = index.class_pixels
    absent = [name for name in layout.palette.names if not pixels[name]]
    held = values_in(layout, raw, index) if layout.indices else None
    if held and (line := foreign_values(layout, held)):
        raise UserError(line)
    if index.unknown.pixels:
        yield _outside(layout, index, masked)
    if len(absent) == layout.palette.num_classes:
        key, values = ("indices", layout.indices) if layout.indices else ("classes", layout.palette.classes)
        raise UserError(
            f"no pixel of {len(masked)} masks is of a class, all are unknown or ignored ({IGNORE} is no "
            f"class): correct the masks, or the values of the classes, which are dataset.{key}={dict(values)}"
        )
    if layout.palette.num_classes == 1:
        yield (
            f"{layout.palette.names[0]} is the only class: every pixel that the masks know is of it, so any "
            "map is scored as right; name what else is there as a class"
        )
    if absent:
        yield (
            f"no pixel in any of {len(masked)} masks is of {', '.join(absent)}: without a score; check the "
            f"colours or values of the classes, and whether {NODATA_HINT}{possible_meaning(layout, held)}"
        )


def _outside(layout: RawLayout, index: SceneIndex, masked: list[Scene]) -> str:
    """Says which fraction of the labelled pixels, those that are not ignored, is outside the palette.

    Raises:
        UserError: It is more than `MOST`, or all of one mask.
    """
    names, unknown, as_first = layout.palette.names, index.unknown, layout.palette.unknown_as_first
    labelled = sum(index.class_pixels.values()) + (0 if as_first else unknown.pixels)
    fraction, meaning = unknown.pixels / labelled, f"count as {names[0]}" if as_first else "no class"
    outside = f"{unknown.pixels} of {labelled} labelled pixels of the masks ({100 * fraction:.3g} %)"
    ignored = f"'dataset.ignored={{none: {list(unknown.counts[0][0])}}}' names what is meant to have none"
    wholly = [scene.name for scene in masked if not any(scene.class_pixels) and scene.unknown_pixels]
    if as_first or (fraction <= MOST and not wholly):
        return f"{outside} have colours outside the palette, and {meaning}: {unknown}; {ignored}"
    hints = ""
    if wholly:
        hints += f"no pixel of {len(wholly)} of {len(masked)} masks ({few(wholly)}) has a class's colour; "
    if all(red == green == blue for (red, green, blue), _ in unknown.counts):
        values = ", ".join(f"{name}: VALUE" for name in names)
        hints += f"if masks hold values and no colours, type 'dataset.indices={{{values}}}'; "
    raise UserError(
        f"{outside} have colours outside the palette, and {meaning}: {unknown}; {hints}correct "
        f"'dataset.classes={{NAME: [RED, GREEN, BLUE], ...}}'; {ignored}"
    )


def table_conflict(layout: RawLayout, raw: Path, index: SceneIndex) -> str | None:
    """Describes two index masks that show the same class in different colours.

    Programs that choose a palette for each image number the same colours differently from file to file. Only
    values that occur in a mask are compared, as the rest of a table is often filled in at will.

    Returns:
        What differs and what to type; None if nothing does, or masks are read by their colours.
    """
    if not layout.indices:
        return None
    colours: dict[str, tuple[list[int], RawFile]] = {}
    for job in scene_jobs(layout, raw):
        if job.mask is None or job.scene not in index.by_name:
            continue
        with job.mask.open() as raster:
            table = raster.colours
        if table is None:
            continue
        for name, pixels in zip(layout.palette.names, index.scene(job.scene).class_pixels, strict=True):
            if not pixels:
                continue
            colour: list[int] = table[layout.indices[name]].tolist()
            before, file = colours.setdefault(name, (colour, job.mask))
            if colour != before:
                values = ", ".join(f"{one}: {value}" for one, value in layout.indices.items())
                return (
                    f"the value {layout.indices[name]} has the colour {before} in the mask {file} and "
                    f"{colour} in {job.mask}: if colours stand for classes, type "
                    f"'dataset.classes={{{name}: [RED, GREEN, BLUE], ...}}'; if values do, type "
                    f"'dataset.indices={{{values}}}'"
                )
    return None


def contradictions(table: TagTable, reader: SceneReader) -> Iterator[str]:
    """Yields a line for each class whose tags contradict the masks."""
    compared = [row for row, tile in enumerate(table.tiles) if reader.has_mask(tile.scene)]
    if not compared:
        return
    present = np.array([_present(table.tiles[row], reader) for row in compared])
    tagged = table.tags[compared].astype(bool)
    for place, name in enumerate(table.names):
        for wrong, how in (
            (tagged[:, place] & ~present[:, place], "are tagged {}, and their masks have none"),
            (~tagged[:, place] & present[:, place], "have {} in their masks, and no such tag"),
        ):
            if count := int(wrong.sum()):
                rows = np.flatnonzero(wrong)[:LISTED].tolist()
                first = ", ".join(table.tiles[compared[row]].name for row in rows)
                yield f"{count} of {len(compared)} tiles {how.format(name)}: {first}"


def _present(tile: Tile, reader: SceneReader) -> NDArray[np.bool_]:
    """Which classes occur in the mask of a tile, (C,); a tagged image may be a whole scene."""
    parts = [tags_of(reader.mask(strip), reader.index.palette.num_classes) for strip in tile.strips()]
    return np.asarray(np.any(parts, axis=0))
