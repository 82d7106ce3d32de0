"""Reads raw reference images as colours, and checks that they match their image."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ome.errors import UserError
from ome.geo.grid import Grid, misplaced
from ome.geo.raster_file import UnreadableError
from ome.geo.reader import Raster


def check_reference(scene: str, reference: Raster, image: Grid, image_name: str, *, indices: bool) -> None:
    """Refuses a reference that does not match its image, or whose values may be other classes.

    Args:
        scene: Name of the scene in error messages.
        reference: The open reference.
        image: Size and georeference of its image.
        image_name: Name of the image in error messages.
        indices: Whether its values are class indices.

    Raises:
        UnreadableError: Its compression is lossy, or may be, or its values stand for others.
        UserError: Its size, CRS or position differs, or it has neither one band nor three.
    """
    grid = reference.grid
    if fault := reference.mask_fault:
        raise UnreadableError(f"{reference} {fault}")
    if (grid.height, grid.width) != (image.height, image.width):
        raise UserError(
            f"scene {scene}: the mask {reference} has {grid.width} x {grid.height} pixels, "
            f"its image {image_name} {image.width} x {image.height}"
        )
    if difference := misplaced(grid, image):
        raise UserError(
            f"scene {scene}: the mask {reference} {difference} its image {image_name}: warp it to the "
            "image's grid, e.g. with gdalwarp, or remove its georeference if that is wrong"
        )
    if reference.bands == 2:
        raise UserError(f"{reference} has 2 bands: a reference image has one or three")
    if indices and reference.bands > 1 and not reference.has_colour_table:
        raise UserError(
            f"{reference} has {reference.bands} bands, and a mask of class indices has one; the colours of "
            "other masks are given by 'dataset.classes={NAME: [RED, GREEN, BLUE], ...}'"
        )


def reference_colours(
    reference: Raster, *, indices: bool
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Reads a reference from top to bottom.

    A single band is looked up in the file's colour table; without one, value v becomes (v, v, v).

    Args:
        reference: The open reference; see `check_reference`.
        indices: Whether values are class indices, so that a colour table is ignored.

    Yields:
        First row, colours (rows, W, 3) uint8, and validity (rows, W).

    Raises:
        UnreadableError: The file is damaged, or has values that do not fit into a byte.
    """
    for window in reference.strips():
        valid = reference.valid(*window)
        if reference.has_colour_table and not indices:
            pixels = reference.read(*window)
        elif reference.has_colour_table or reference.bands == 1:
            pixels = _bytes(reference, reference.values(*window), valid)[None].repeat(3, axis=0)
        else:
            pixels = _bytes(reference, reference.read(*window, (1, 2, 3)), valid)
        yield window[0], np.ascontiguousarray(pixels.transpose(1, 2, 0)), valid


def _bytes(reference: Raster, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Converts integers from 0 to 255 of any data type to bytes."""
    if values.dtype == np.uint8:
        return values
    measured = values[..., valid]
    wrong = measured[~((measured >= 0) & (measured <= 255) & (measured == np.rint(measured)))]
    if wrong.size:
        raise UnreadableError(
            f"the mask {reference} holds the {reference.depth} value {wrong[0]:g}: a mask has whole values "
            "from 0 to 255"
        )
    return np.where(valid, values, 0).astype(np.uint8)
