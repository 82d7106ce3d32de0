"""Class activation maps of other programs, as class maps of tiles."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ome.data.cams import cam_files
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import read_arrays
from ome.geo.gdal import plain_pixels
from ome.geo.sidecars import check_sidecars
from ome.pseudo.arrays import check_form, finite_maps, normalised


class OwnCams:
    """Reads the maps of tiles from a folder: a file for each tile, or for each scene.

    A file holds C maps (C, h, w) in the order of the classes, raw or normalised and of any stride: `.npy`, an
    `.npz` with one array, or a GeoTIFF with C bands. It is called like the tile, e.g.
    `north_00000_00256.npy`, or like the scene (an image of `dataset=custom`); of the maps of a scene a tile
    gets its window. Each tagged class is stretched to 0..1 in each tile.

    Args:
        folder: Where the files lie; folders in it are searched too.
        reader: Knows the classes and the sizes of scenes.
        tagged: The tags of the tiles.

    Raises:
        UserError: There is no folder or no file in it, or two have one name.
    """

    def __init__(self, folder: Path, reader: SceneReader, tagged: TagTable) -> None:
        self._files = cam_files(folder)
        self._folder, self._reader, self._tagged = folder, reader, tagged

    def check(self, tiles: Sequence[Tile]) -> None:
        """Refuses tiles without maps, before the first CRF.

        Raises:
            UserError: Some have none.
        """
        without = [tile for tile in tiles if not {tile.name, tile.scene} & self._files.keys()]
        if without:
            raise UserError(
                f"stage.pseudo.cams={self._folder} has no maps of {len(without)} of {len(tiles)} tiles: add "
                f"{without[0].name}.npy, or {without[0].scene}.npy for the whole scene"
            )

    def __call__(self, tiles: Sequence[Tile]) -> Iterator[NDArray[np.float32]]:
        """The normalised maps (C, H, W) of each tile."""
        for tile in tiles:
            own, size = self._files.get(tile.name), (tile.height, tile.width)
            path = own or self._files[tile.scene]
            maps, whole = read_maps(path, len(self._tagged.names)), size
            if own is None:
                grid = self._reader.grid(tile.scene)
                whole = (grid.height, grid.width)
            check_form(maps, whole, f"the maps in {path}")
            if own is None:
                maps = window_of(maps, tile, whole)
            yield normalised(maps, size, self._tagged.by_name[tile.name])


def read_maps(path: Path, num_classes: int) -> NDArray[np.float32]:
    """Reads the maps (C, h, w) of one file; never unpickles.

    Raises:
        UserError: The file is damaged, or does not hold finite maps of the classes.
    """
    maps: NDArray[Any]
    try:
        if path.suffix.lower() == ".npy":
            maps = np.lib.format.open_memmap(path, mode="r")  # an .npz of that name is none
        elif path.suffix.lower() == ".npz":
            (maps,) = read_arrays(path).values()
        else:
            with plain_pixels(), rasterio.open(path, driver="GTiff") as raster:
                check_sidecars(path, raster)
                maps = raster.read()
    except (OSError, ValueError, EOFError, BadZipFile, rasterio.RasterioIOError) as error:
        raise UserError(f"{path} cannot be read as one array of maps: {error}") from error
    if maps.ndim != 3 or len(maps) != num_classes or not maps.size or maps.dtype.kind not in "fiu":
        raise UserError(
            f"{path} holds {maps.dtype} of the shape {maps.shape}: give numbers of the shape "
            f"({num_classes}, height, width), a map for each class in the order of dataset.classes"
        )
    if (result := finite_maps(maps)) is None:
        raise UserError(f"{path} holds nan, infinite or huge values: replace them, e.g. by np.nan_to_num")
    return result


def window_of(maps: NDArray[np.float32], tile: Tile, size: tuple[int, int]) -> NDArray[np.float32]:
    """The window of a tile, from maps of a whole scene at any stride.

    Equal to a bilinear resize of the maps to the scene's size, of which the window is cut, without the
    memory that this takes.

    Args:
        maps: (C, h, w) of the scene.
        tile: The window.
        size: Height and width of the scene in pixels.
    """
    rows = (tile.row + torch.arange(tile.height, dtype=torch.float64) + 0.5) / size[0] * 2 - 1
    columns = (tile.column + torch.arange(tile.width, dtype=torch.float64) + 0.5) / size[1] * 2 - 1
    grid = torch.stack([columns.expand(tile.height, -1), rows[:, None].expand(-1, tile.width)], dim=-1)
    sampled = F.grid_sample(
        torch.from_numpy(maps)[None],
        grid[None].float(),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    window: NDArray[np.float32] = sampled[0].numpy()
    return window
