"""Error lines about values of index masks that belong to no class: what they may mean, and what to type."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ome.data.prepare import scene_jobs
from ome.data.raw import RawLayout
from ome.data.reference import reference_colours
from ome.data.scene_index import SceneIndex
from ome.errors import few
from ome.ignore import IGNORE

NODATA_HINT: Final = (
    "the masks declare its value as nodata or transparent: gdal_edit -unsetnodata MASK, or rewrite them"
)
"""Why a class may have no pixel although its value occurs in the files."""


class MaskValues(NamedTuple):
    """The values of all index masks of a dataset.

    Attributes:
        classes: Those of classes, in ascending order.
        foreign: Those of no class except 255, in ascending order.
        ignore: Whether masks hold 255, which means no class unless it is the value of one.
        unknown: Whether pixels have no class, by the value 255, nodata of a mask or that of its image.
    """

    classes: list[int]
    foreign: list[int]
    ignore: bool
    unknown: bool


def values_in(layout: RawLayout, raw: Path, index: SceneIndex) -> MaskValues:
    """Looks up the values of the masks; reads the files only if a class without a pixel may be 255.

    Args:
        layout: The raw dataset.
        raw: Its folder.
        index: The prepared scenes.
    """
    pixels, unknown = index.class_pixels, index.unknown.pixels
    area = sum(scene.height * scene.width for scene in index.scenes if scene.mask is not None)
    ignored = area > sum(pixels.values()) + unknown and IGNORE not in layout.indices.values()
    return MaskValues(
        sorted(layout.indices[name] for name in layout.palette.names if pixels[name]),
        sorted({red for (red, _, _), _ in index.unknown.counts}),
        ignored and not all(pixels.values()) and _hold_ignore(layout, raw, index),
        ignored,
    )


def _hold_ignore(layout: RawLayout, raw: Path, index: SceneIndex) -> bool:
    for job in scene_jobs(layout, raw):
        if job.mask is not None and job.scene in index.by_name:
            with job.mask.open() as raster:
                strips = reference_colours(raster, indices=True)
                if any((colours[valid] == IGNORE).any() for _, colours, valid in strips):
                    return True
    return False


def foreign_values(layout: RawLayout, values: MaskValues) -> str | None:
    """The error line about values of no class; None if there are none.

    255 is one if a class has no pixel and it may be that class: most programs write 0 and 255 for no and yes,
    or spread all classes over 0 to 255.
    """
    names = layout.palette.names
    one_present = len(values.classes) == 1 and len(names) <= 2
    if not values.foreign and not (one_present and values.unknown):
        return None
    if not values.foreign and not values.ignore and len(names) == 2 and 0 not in values.classes:
        absent = next(name for name in names if layout.indices[name] not in values.classes)
        return (
            f"masks hold the values {few(values.classes, 10)} and pixels of no class, and none of {absent}, "
            f"which is {layout.indices[absent]}: see whether {NODATA_HINT}"
        )
    foreign = [*values.foreign, *([IGNORE] if values.ignore or not values.foreign else [])]
    return _meaning(layout, values.classes, foreign)


def possible_meaning(layout: RawLayout, values: MaskValues | None) -> str:
    """What the values of index masks may mean if all are of classes, but some classes have no pixel."""
    if values is None:
        return ""
    names = layout.palette.names
    if values.ignore:
        return f"; masks hold {IGNORE}: if it is a class, type 'dataset.indices={{NAME: {IGNORE}, ...}}'"
    if [*layout.indices.values()] == [*range(len(names))] and 0 not in values.classes:
        return f"; if the values are indices from 1, type {_settings(_from_one(names), none=None)}"
    return ""


def _from_one(names: tuple[str, ...]) -> dict[str, int]:
    return {name: value for value, name in enumerate(names, 1)}


def _meaning(layout: RawLayout, classes: list[int], foreign: list[int]) -> str:
    names = layout.palette.names
    values = sorted({*foreign, *classes})
    unknown = f"{few(values, 10)} (no class has {few(foreign)})"
    message = f"masks hold the values {unknown}, and the classes have {dict(layout.indices)}"
    if len(names) == 1 and len(values) == 2:
        other = next(value for value in values if value != layout.indices[names[0]])
        first, second = sorted((other, layout.indices[names[0]]))
        return (
            f"{message}: if {second} is {names[0]}, what has {first} must be a class too, or every map would "
            f"be scored as right: type 'dataset.classes=[other,{names[0]}]' 'dataset.indices={{other: "
            f"{first}, {names[0]}: {second}}}', and tag other in the table"
        )
    without_zero = [value for value in values if value]
    none = 0 if len(without_zero) < len(values) else None
    if without_zero[-1:] == [len(names)] and {*without_zero} - {*layout.indices.values()}:
        return (
            f"{message}; these look like indices from 1: if the values follow the order of the classes, type "
            f"{_settings(_from_one(names), none)}"
        )
    if len(classes) == len(names) and len(foreign) == 1:
        remedy = _settings(layout.indices, none=foreign[0])
        return f"{message}: if {foreign[0]} marks pixels without a class, type {remedy}"
    order = values if len(values) == len(names) else without_zero
    if len(order) != len(names):
        return (
            f"{message}: give each class its value by 'dataset.indices={{{names[0]}: VALUE, ...}}', and "
            "other values a name there and in 'dataset.ignored={NAME: [VALUE, VALUE, VALUE]}'"
        )
    remedy = _settings(dict(zip(names, order, strict=True)), none if len(order) < len(values) else None)
    return f"{message}: if the values follow the order of the classes, type {remedy}"


def _settings(indices: Mapping[str, int], none: int | None) -> str:
    """What to type for the values of classes, and for the one of pixels without a class, if any."""
    ignored = "" if none is None else f" 'dataset.ignored={{none: {[none] * 3}}}'"
    values = indices if none is None else {**indices, "none": none}
    pairs = ", ".join(f"{name}: {value}" for name, value in values.items())
    return f"'dataset.indices={{{pairs}}}'{ignored}"
