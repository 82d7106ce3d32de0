"""Images and windows as the page shows them: three bands, 8 bits, no larger than a screen."""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window

from ome.data.rasters import RawFile, RawRaster
from ome.data.scaling import Limits, byte_tables, to_bytes
from ome.errors import UserError
from ome.tagging.items import Item

LONGEST: Final = 1600
"""Pixels along the longer side of a picture."""

REMEMBERED: Final = 64
"""Images whose scaling is kept: windows of one follow each other, and each needs the limits of the whole."""


class Pictures:
    """Makes pictures; safe to use from several threads.

    Args:
        bands: Bands (1-based) shown as red, green and blue, or one for grey; empty for the first three that
            show something, the last repeated where there are fewer.
        limits: The values of 16-bit images that become 0 and 255; None for percentiles of each band of the
            whole image, as `dataset=custom` scales them.
    """

    def __init__(self, bands: Sequence[int] = (), limits: Limits | None = None) -> None:
        self._bands = tuple(bands)
        self._limits = limits
        self._tables: OrderedDict[RawFile, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def jpeg(self, item: Item) -> bytes:
        """The picture of an item as JPEG.

        Raises:
            UserError: The file is damaged, or lacks a band.
        """
        stream = io.BytesIO()
        Image.fromarray(self.pixels(item)).save(stream, "JPEG", quality=95, subsampling=0)
        return stream.getvalue()

    def pixels(self, item: Item) -> NDArray[np.uint8]:
        """The picture of an item, (H, W, 3), its longer side at most `LONGEST`."""
        with item.file.open() as raster:
            height, width = raster.shape
            window = Window(0, 0, width, height)
            if item.tile is not None:
                window = Window(item.tile.column, item.tile.row, item.tile.width, item.tile.height)
            share = min(1.0, LONGEST / max(window.height, window.width))
            shape = (max(1, round(window.height * share)), max(1, round(window.width * share)))
            pixels = raster.part(window, shape)
            if raster.depth == "uint16":
                pixels = to_bytes(pixels, self._tables_of(raster))
            places = [band - 1 for band in self._shown(raster)]
        return np.ascontiguousarray(pixels[places].transpose(1, 2, 0))

    def _shown(self, raster: RawRaster) -> Sequence[int]:
        there = raster.shown_bands
        if self._bands:
            count = 3 if raster.has_colour_table else raster.dataset.count
            if not all(1 <= band <= count for band in self._bands):
                raise UserError(f"--bands: {raster} has the bands 1 to {count}")
            return (self._bands * 3)[:3] if len(self._bands) == 1 else self._bands
        return [there[min(place, len(there) - 1)] for place in range(3)]

    def _tables_of(self, raster: RawRaster) -> NDArray[np.uint8]:
        with self._lock:
            if (tables := self._tables.get(raster.file)) is not None:
                self._tables.move_to_end(raster.file)
                return tables
        strips = (pixels for _, pixels in raster.strips())
        tables = byte_tables(strips, raster.dataset.nodatavals, self._limits)
        with self._lock:
            self._tables[raster.file] = tables
            while len(self._tables) > REMEMBERED:
                self._tables.popitem(last=False)
        return tables
