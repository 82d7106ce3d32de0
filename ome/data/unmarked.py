"""What a raster seems to say about invalid pixels, in a way that does not count: pointed out in a line."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.markup import escape

from ome.geo.mosaic import Mosaic
from ome.geo.opacity import is_one_colour
from ome.geo.reader import IMAGE_DEPTHS, Raster
from ome.geo.strips import sample_of
from ome.geo.validity import fits
from ome.progress import console


def unmarked(raster: Raster | Mosaic) -> list[str]:
    """What is wrong with an open raster, each to follow the name of its file."""
    lines: list[str] = []
    if (nodata := raster.lost_nodata) is not None:
        partly = fits(nodata, raster.depth)
        reason = "for some of its bands alone" if partly else f"which no pixel of {raster.depth} can have"
        lines.append(
            f"declares nodata={nodata:g}, {reason}: no pixel counts as nodata; type dataset.nodata=N "
            "for the value that its empty pixels have"
        )
    if (band := unlabelled_opacity(raster)) is not None:
        lines.append(
            f"has opacity in band {band}, it seems, but does not label it: it is read as an image band, and "
            f"its transparent pixels as valid; label it, gdal_edit.py -colorinterp_{band} alpha FILE"
        )
    return lines


def say_unmarked(files_by_line: Mapping[str, Sequence[object]]) -> None:
    """Prints the files of each line of `unmarked`."""
    for line, files in files_by_line.items():
        more = f" (and {len(files) - 1} other images alike)" if len(files) > 1 else ""
        console.print(f"[yellow]{escape(str(files[0]))} {line}[/]{more}")


def unlabelled_opacity(raster: Raster | Mosaic) -> int | None:
    """The last band if it has no label, but is opacity by its values in nine windows; None otherwise.

    It holds 0 and the largest value of its depth alone, and the valid pixels where it is 0 have one colour.
    """
    last = raster.bands
    labelled = last not in raster.shown_bands or last == raster.mislabelled_opacity
    if last < 2 or labelled or raster.band_colours[-1] or raster.depth not in IMAGE_DEPTHS:
        return None
    largest = np.iinfo(raster.depth).max
    parts = []
    for window in sample_of(raster.grid):
        band = raster.read(*window, [last])
        if not np.isin(band, (0, largest)).all():  # the first window of an infrared band
            return None
        parts.append(raster.read(*window)[:, raster.valid(*window)])
    *image, band = np.concatenate(parts, axis=1)
    empty = band == 0
    clear = empty.any() and not empty.all() and is_one_colour(np.stack(image)[:, empty])
    return last if clear else None
