"""Sizes of the pixels of training images on the ground: large differences are printed."""

from contextlib import suppress

from rich.markup import escape

from ome.data.raw_file import RawFile
from ome.errors import UserError
from ome.geo.areas import MAX_PIXEL_RATIO, PixelAreas
from ome.geo.grid import Grid
from ome.progress import console


class PixelSizes:
    """Collects images, measures one of each reference system and pixel size, and prints how they differ."""

    def __init__(self) -> None:
        self._files: dict[tuple[object, ...], list[tuple[RawFile, Grid]]] = {}

    def add(self, image: RawFile, grid: Grid) -> None:
        """Adds an image; one without a georeference does not count."""
        if grid.crs is not None:
            key = (grid.crs.to_wkt(), *grid.transform[:2], *grid.transform[3:5])
            self._files.setdefault(key, []).append((image, grid))

    def say(self) -> None:
        """Prints a line if the largest pixels are much larger than others, or if degrees and metres mix."""
        sizes: dict[float, RawFile] = {}
        units: dict[bool, list[RawFile]] = {}
        for files in self._files.values():
            image, grid = files[0]
            geographic = grid.crs is not None and grid.crs.is_geographic
            units.setdefault(geographic, []).extend(file for file, _ in files)
            with suppress(UserError):  # not a place on Earth: said where areas are measured
                if size := PixelAreas(grid, str(image)).pixel_size():
                    sizes.setdefault(size, image)
        low, high = min(sizes, default=1.0), max(sizes, default=1.0)
        if high > MAX_PIXEL_RATIO * low:
            console.print(
                f"[yellow]pixels of the training images are {low:.3g} m to {high:.3g} m wide[/] (e.g. "
                f"{escape(str(sizes[low]))} and {escape(str(sizes[high]))}), so that a class looks different "
                "in each: bring them to one size, gdalwarp -tr SIZE SIZE IN OUT"
            )
        if len(units) > 1:
            degrees, metres = units[True], units[False]
            console.print(
                f"[yellow]{len(degrees)} training images have degrees as coordinates (e.g. "
                f"{escape(str(degrees[0]))}), {len(metres)} metres[/]: in degrees, pixels are narrower than "
                "high on the ground; bring all to one system, gdalwarp -t_srs EPSG:CODE IN OUT"
            )
