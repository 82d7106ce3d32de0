"""A raster as input of a network: selected bands, scaled to 8 bits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from ome.data.scaling import Limits, Scaling, misfit, scaling_of
from ome.data.unmarked import say_unmarked, unmarked
from ome.errors import UserError
from ome.geo.grid import Grid
from ome.geo.image_source import ImageSource, source_of
from ome.geo.mosaic import Mosaic
from ome.geo.raster_folder import rasters_in
from ome.geo.reader import Raster
from ome.geo.virtual import check_virtual
from ome.geo.virtual_raster import VirtualRaster
from ome.geo.vsi import SceneAddress, VsiPath
from ome.progress import console


class ByteImage:
    """The input bands of a network from an open raster, in the network's order, scaled to 8 bits.

    Attributes:
        name: Its name in error messages.
        grid: Size and georeference.
        channels: The bands that are read, 1-based, in the network's order.
        source: The depth and the bands of the raster.

    Args:
        raster: The open raster, of 8 or 16 bits.
        channels: Bands to read, 1-based, in the network's order.
        limits: 16-bit values that become 0 and 255; None for percentiles of each band, as in `prepare`.

    Raises:
        UserError: The raster has another depth, or lacks a band.
    """

    def __init__(
        self, raster: Raster | Mosaic, channels: Sequence[int], limits: Limits | None = None
    ) -> None:
        raster.require()
        self._raster, self.channels = raster, tuple(channels)
        self.name: str = raster.name
        self.grid: Grid = raster.grid
        if not all(1 <= channel <= raster.bands for channel in channels):
            possible = ",".join(str(min(place + 1, raster.bands)) for place in range(len(channels)))
            raise UserError(
                f"{raster} has {raster.bands} bands, and the network expects the bands {list(channels)}: "
                f"choose as many of them in the network's order, e.g. 'dataset.channels=[{possible}]'"
            )
        if (band := raster.mislabelled_opacity) is not None:
            console.print(
                f"[yellow]{raster.name} labels band {band} opacity[/], but it "
                + (
                    "is one of the network's bands: it is read as an image band"
                    if band in self.channels
                    else "holds an image: it is kept as an image band"
                )
            )
        self.source: ImageSource = source_of(raster)
        self._scaling: Scaling | None = None
        if raster.depth == "uint16":
            self._scaling = scaling_of(raster, self.channels, limits, progress=True)
        _say_misfit(raster, self.channels, limits)

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[np.uint8]:
        """Reads (height, width, channels) uint8 from a window inside the image.

        Raises:
            UserError: The file is damaged there.
        """
        pixels = self._raster.read(row, column, height, width, self.channels)
        if self._scaling is not None:
            pixels = self._scaling.to_bytes(pixels)
        return channels_last(pixels)

    def valid(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """Reads which pixels of a window are valid, (height, width)."""
        return self._raster.valid(row, column, height, width)

    @property
    def all_valid(self) -> bool:
        """Whether every pixel is valid for certain, without reading any."""
        return self._raster.all_valid


def _say_misfit(raster: Raster | Mosaic, channels: Sequence[int], limits: Limits | None) -> None:
    """Prints that the limits of 16-bit values do not apply to a raster, or not to its values."""
    if limits is None:
        return
    line = f"{escape(raster.name)} has 8 bits[/]: dataset.range={list(limits)} does not apply to it"
    if raster.depth == "uint16":
        if (values := misfit(raster, channels, limits)) is None:
            return
        line = f"{escape(raster.name)} has {values}[/]: dataset.range={list(limits)} does not fit them"
    console.print(f"[yellow]{line}")


def channels_last(bands: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turns (B, H, W) into (H, W, B), contiguous."""
    # Five times as fast as a transposed copy, which takes longer than reading the file.
    merged: NDArray[np.uint8] = cv2.merge(list(bands)).reshape(*bands.shape[1:], len(bands))
    return merged


@contextmanager
def open_scene(
    path: SceneAddress,
    channels: Sequence[int],
    limits: Limits | None = None,
    *,
    nodata: float | None = None,
    allow_external: bool = False,
) -> Iterator[ByteImage]:
    """Opens a scene that was not prepared.

    Args:
        path: A raster of one of `SCENE_DRIVERS`, a VRT, or a folder of rasters on one grid; a remote or
            archived scene is a raster of one of `IMAGE_DRIVERS`.
        channels: Bands to read, see `ByteImage`.
        limits: See `ByteImage`.
        nodata: Nodata value; None for the values in the files.
        allow_external: Let a VRT read files outside its folder.

    Yields:
        The scene; closed when the block ends.

    Raises:
        UserError: It is missing, damaged, of another format or depth, or lacks a band.
    """
    raster: Raster | Mosaic
    if isinstance(path, VsiPath):
        raster = Raster(path, channels=channels, nodata=nodata)
    elif path.is_dir():
        raster = Mosaic(rasters_in(path), str(path), channels, nodata)
    elif path.suffix.lower() == ".vrt":
        check_virtual(path, allow_external=allow_external)
        raster = VirtualRaster(path, channels=channels, nodata=nodata)
    else:
        raster = Raster(path, channels=channels, nodata=nodata)
    with raster:
        say_unmarked({line: [raster] for line in unmarked(raster)})
        yield ByteImage(raster, channels, limits)
