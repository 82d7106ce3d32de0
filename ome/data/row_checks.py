"""Where a folder of images and its table of tags differ: rows without an image, and images without a row."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ome.data.image_tags import Outline
from ome.data.names import bare_name, normal_form
from ome.errors import UserError, few
from ome.geo.raster_folder import OTHER_SUFFIXES, format_hint, other_rasters_in, subfolder_hint
from ome.progress import say_once

_OF_MASK: Final = re.compile(r"(.+)_(?:masks?|labels?|gt)", re.IGNORECASE)
"""Name of the mask of an image, as many data sets have it beside the image."""


def check_rows(tagged: Outline, images: Sequence[str], table: Path, raw: Path) -> None:
    """Refuses rows without an image.

    Raises:
        UserError: There are some; the message says where their files may be.
    """
    known = set(images)
    if wrong := [name for name in tagged.splits if name not in known]:
        listed = few(f"{name} (line {tagged.lines[name]})" for name in wrong)
        hints = subfolder_hint(raw, wrong) + format_hint(raw, wrong) + _name_hint(images, wrong)
        raise UserError(
            f"{len(wrong)} of {len(tagged.splits)} images in {table} are not in {raw}: {listed}; "
            f"correct or delete the rows, or add the images{hints}"
        )


def check_unlisted(tagged: Outline, images: Sequence[str], table: Path, raw: Path, *, masks: bool) -> None:
    """Prints which images have no row, and which files no format that is read.

    Args:
        tagged: The table.
        images: Names of the images.
        table: Its path, for messages.
        raw: The folder of the images.
        masks: Whether there are masks: then scored images are mapped, too.

    Raises:
        UserError: An image without a row has the name of another image's mask.
    """
    known = {*images}
    unlisted = [name for name in images if name not in tagged.splits]
    parts = {name: _OF_MASK.fullmatch(name) for name in unlisted}
    if of_images := [f"{name} of {part[1]}" for name, part in parts.items() if part and part[1] in known]:
        raise UserError(
            f"{len(of_images)} images in {raw} are masks, by their names: {few(of_images)}; move them to "
            "another folder under the names of their images, and type dataset.masks=FOLDER, or give them "
            "rows with the split test"
        )
    if unlisted:
        splits = {*tagged.splits.values()}
        instead = "" if masks or "val" not in splits or "test" in splits else ", in place of the val images"
        say_once(
            f"{len(unlisted)} of {len(images)} images have no row in {table}: they are mapped{instead} "
            f"({few(unlisted)})"
        )
    if others := [name for name in other_rasters_in(raw) if normal_form(Path(name).stem) not in known]:
        say_once(
            f"{len(others)} files in {raw} are left out, since only GeoTIFF, PNG and JPEG are read: convert "
            f"them, gdal_translate IN OUT.tif ({few(others)})"
        )


def _name_hint(images: Sequence[str], wrong: Sequence[str]) -> str:
    """Names an image that a row is probably of, as 001 for the 1 of a spreadsheet; empty without."""
    known = {bare_name(name): name for name in images}
    for name in wrong:
        stem = Path(name).stem if Path(name).suffix.lower() in OTHER_SUFFIXES else name
        if (image := known.get(bare_name(stem))) is not None:
            return f"; for {name} the folder has {image}"
    return ""
