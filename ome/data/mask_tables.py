"""Compares the colour tables of masks that hold class indices."""

from pathlib import Path

from ome.data.prepare import scene_jobs
from ome.data.raw import RawLayout
from ome.data.raw_file import RawFile
from ome.data.scene_index import SceneIndex


def table_conflict(layout: RawLayout, raw: Path, index: SceneIndex) -> str | None:
    """Describes two index masks that show the same class in different colours.

    Programs that choose a palette for each image number the same colours differently from file to file. Only
    values that occur in a mask are compared, as the rest of a table is often filled in at will.

    Args:
        layout: The layout of the dataset.
        raw: The raw folder.
        index: The prepared scenes.

    Returns:
        What differs and what to type; None if nothing does, or masks are read by their colours.
    """
    if not layout.indices:
        return None
    scenes = {scene.name: scene for scene in index.scenes}
    seen: dict[str, tuple[list[int], RawFile]] = {}
    for job in scene_jobs(layout, raw):
        if job.mask is None or job.scene not in scenes:
            continue
        with job.mask.open() as raster:
            table = raster.colours
        if table is None:
            continue
        for name, pixels in zip(layout.palette.names, scenes[job.scene].class_pixels, strict=True):
            if not pixels:
                continue
            colour: list[int] = table[layout.indices[name]].tolist()
            before, file = seen.setdefault(name, (colour, job.mask))
            if colour != before:
                values = ", ".join(f"{one}: {value}" for one, value in layout.indices.items())
                return (
                    f"the value {layout.indices[name]} has the colour {before} in the mask {file} and "
                    f"{colour} in {job.mask}: if colours stand for classes, type "
                    f"'dataset.classes={{{name}: [RED, GREEN, BLUE], ...}}'; if values do, type "
                    f"'dataset.indices={{{values}}}'"
                )
    return None
