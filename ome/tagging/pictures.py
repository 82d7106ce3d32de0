"""Pictures of images and windows for the page: three bands, 8 bits, no larger than a screen."""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ome.data.byte_image import channels_last
from ome.data.raw_file import RawFile
from ome.data.scaling import Limits, Scaling, scaling_of
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.geo.reader import Raster
from ome.tagging.items import Item

LONGEST: Final = 1600
"""Maximum length of the longer side of a picture in pixels."""

CACHED: Final = 64
"""Images whose scaling is cached, since each window of an image needs the limits of the whole image."""


class Pictures:
    """Makes pictures; safe to use from several threads.

    Args:
        bands: Bands (1-based) shown as red, green and blue, or one for grey; empty for the first three bands
            without opacity, of which the last is repeated if there are fewer.
        limits: Values of 16-bit images that become 0 and 255; None for percentiles of each band of the whole
            image, as `dataset=custom` scales them.
    """

    def __init__(self, bands: Sequence[int] = (), limits: Limits | None = None) -> None:
        self._bands = tuple(bands)
        self._limits = limits
        self._scalings: OrderedDict[RawFile, Scaling] = OrderedDict()
        self._lock = threading.Lock()

    def jpeg(self, item: Item) -> bytes:
        """The picture of an item as JPEG.

        Raises:
            UserError: The file is damaged or lacks a band.
        """
        stream = io.BytesIO()
        Image.fromarray(self.pixels(item)).save(stream, "JPEG", quality=95, subsampling=0)
        return stream.getvalue()

    def pixels(self, item: Item) -> NDArray[np.uint8]:
        """The picture of an item, (H, W, 3) uint8 with H and W at most `LONGEST`."""
        with item.file.open() as raster:
            raster.require()
            window = item.tile or Tile(item.image, 0, 0, raster.grid.height, raster.grid.width)
            row, column, height, width = window.row, window.column, window.height, window.width
            scale = min(1.0, LONGEST / max(height, width))
            shape = (max(1, round(height * scale)), max(1, round(width * scale)))
            pixels = raster.reduced(row, column, height, width, shape)
            if raster.depth == "uint16":
                pixels = self._scaling_of(item.file, raster).to_bytes(pixels)
            indices = [band - 1 for band in self._shown(raster)]
        return channels_last(pixels[indices])

    def _shown(self, raster: Raster) -> Sequence[int]:
        available = raster.shown_bands
        if self._bands:
            if not all(1 <= band <= raster.bands for band in self._bands):
                raise UserError(f"--bands: {raster} has the bands 1 to {raster.bands}")
            return (self._bands * 3)[:3] if len(self._bands) == 1 else self._bands
        return [available[min(index, len(available) - 1)] for index in range(3)]

    def _scaling_of(self, file: RawFile, raster: Raster) -> Scaling:
        with self._lock:
            if (scaling := self._scalings.get(file)) is not None:
                self._scalings.move_to_end(file)
                return scaling
        scaling = scaling_of(raster, range(1, raster.bands + 1), self._limits)
        with self._lock:
            self._scalings[file] = scaling
            while len(self._scalings) > CACHED:
                self._scalings.popitem(last=False)
        return scaling
