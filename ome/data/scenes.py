"""Reads windows of prepared scenes."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ome.data.byte_image import ByteImage, channels_last
from ome.data.scene_index import SceneIndex
from ome.data.scene_writer import image_source
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.geo.grid import Grid
from ome.geo.image_source import ImageSource
from ome.geo.reader import Raster

MAX_OPEN: Final = 16
"""Largest number of files that a reader keeps open; Potsdam's training split has 46 (images and masks)."""


def picture_places(channels: tuple[int, ...], display: Sequence[int] | None) -> tuple[int, ...]:
    """Indices (from 0) of the three channels that make up a picture; see `SceneReader`."""
    places = list(display) if display else [min(place, len(channels)) for place in (1, 2, 3)]
    if len(places) not in {1, 3} or not all(1 <= place <= len(channels) for place in places):
        raise UserError(
            f"dataset.display={places}: give three positions, or one, from 1 to {len(channels)} (the "
            f"channels are {list(channels)})"
        )
    return tuple(place - 1 for place in (places * 3)[:3])


class SceneReader:
    """Reads windows of prepared scenes, in any order.

    Files are opened when first read and at most `MAX_OPEN` stay open. A copy in another process, forked or
    spawned, opens its own files: processes that share a file position would disturb each other's reads.

    Args:
        index: The scenes.
        channels: Bands of an image, 1-based, in order, e.g. (4, 1, 2); None for the index's default.
        display: Positions (1-based) in the channels of the picture for display and for the CRF: three, or one
            for a grey picture; None for the first three, where the last is repeated if there are fewer.

    Raises:
        UserError: When a scene lacks a channel, a channel was opacity when the scene was prepared, `display`
            is out of range, or the images differ in their bands and no channels are given.
    """

    def __init__(
        self, index: SceneIndex, channels: Sequence[int] | None = None, display: Sequence[int] | None = None
    ) -> None:
        self.index = index
        self.channels = tuple(channels or index.channels)
        if not self.channels:
            raise UserError(
                f"the images in {index.folder} differ in their bands: choose bands that all have, e.g. "
                "'dataset.channels=[1]'"
            )
        if named := sorted(set(self.channels) & set(index.opacity)):
            raise UserError(
                f"dataset.channels={list(self.channels)}: band {named[0]} was opacity when the scenes in "
                f"{index.folder} were prepared: run stage=prepare with these channels, or leave it out"
            )
        self.picture = picture_places(self.channels, display)
        self._shown = tuple(self.channels[place] for place in self.picture)
        self._open: OrderedDict[str, Raster] = OrderedDict()
        self._process = os.getpid()
        for scene in index.scenes:
            if not all(1 <= channel <= scene.bands for channel in self.channels):
                numbers = list(self.channels)
                raise UserError(
                    f"dataset.channels={numbers}: scene {scene.name} has the bands 1 to {scene.bands}"
                )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def image(self, tile: Tile) -> NDArray[np.uint8]:
        """Reads the image of a tile: (H, W, C) uint8, C as in `channels`.

        Raises:
            UserError: When the scene is not in the index, or its file is missing or damaged.
        """
        return self._pixels(tile, self.channels)

    def display(self, tile: Tile) -> NDArray[np.uint8]:
        """Reads the image of a tile as a picture: (H, W, 3) uint8; errors as for `image`."""
        return self._pixels(tile, self._shown)

    def valid(self, tile: Tile) -> NDArray[np.bool_]:
        """Reads which pixels of a tile are valid, (H, W); errors as for `image`."""
        raster, window = self._open_inside(self.index.scene(tile.scene).image, tile)
        return raster.valid(*window)

    def whole(self, scene: str) -> ByteImage:
        """A whole scene as input of the network; errors as for `image`."""
        return ByteImage(self._raster(self.index.scene(scene).image), self.channels)

    def grid(self, scene: str) -> Grid:
        """Size and georeference of a scene; errors as for `image`."""
        return self._raster(self.index.scene(scene).image).grid

    def source(self, scene: str) -> ImageSource:
        """The source of a scene's image; errors as for `image`."""
        return image_source(self._raster(self.index.scene(scene).image))

    def _pixels(self, tile: Tile, channels: tuple[int, ...]) -> NDArray[np.uint8]:
        raster, window = self._open_inside(self.index.scene(tile.scene).image, tile)
        return channels_last(raster.read(*window, channels))

    def mask(self, tile: Tile) -> NDArray[np.uint8]:
        """Reads the reference mask of a tile: (H, W) uint8, class index or 255.

        Raises:
            UserError: When the scene is not in the index or has no mask, or the file is missing or damaged.
        """
        path = self.index.scene(tile.scene).mask
        if path is None:
            raise UserError(f"scene {tile.scene} in {self.index.folder} has no reference mask")
        raster, window = self._open_inside(path, tile)
        return raster.values(*window)

    def has_mask(self, scene: str) -> bool:
        """Whether the scene of that name has a reference mask."""
        return self.index.scene(scene).mask is not None

    def close(self) -> None:
        """Closes the open files; reading opens them again."""
        while self._open:
            self._open.popitem()[1].close()

    def _open_inside(self, name: str, tile: Tile) -> tuple[Raster, tuple[int, int, int, int]]:
        """The raster of that name, and the tile's window, checked to be inside."""
        raster = self._raster(name)
        height, width = raster.grid.height, raster.grid.width
        inside = tile.row + tile.height <= height and tile.column + tile.width <= width
        if not inside or min(tile.row, tile.column) < 0:
            raise UserError(
                f"{raster}, rows {tile.row}+{tile.height}, columns {tile.column}+{tile.width}: the scene has "
                f"only {height} x {width} pixels"
            )
        return raster, tile.window

    def _raster(self, name: str) -> Raster:
        if self._process != os.getpid():
            self._open = OrderedDict()
            self._process = os.getpid()
        if name not in self._open:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            path = self.index.folder / name
            self._open[name] = Raster(
                path, drivers=("GTiff",), remedy="delete the scene and run stage=prepare again"
            )
        self._open.move_to_end(name)
        return self._open[name]
