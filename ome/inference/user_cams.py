"""Class maps of tiles from the user's files, which other programs wrote."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.transform import Affine
from torch.nn import functional as F

from ome.crf.arrays import finite_maps
from ome.data.array_files import read_array
from ome.data.cams import cam_files
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile, evenly_spaced
from ome.errors import UserError
from ome.geo.gdal import plain_pixels
from ome.geo.grid import Grid, misplaced
from ome.geo.sidecars import check_sidecars
from ome.progress import console
from ome.pseudo.arrays import check_form, normalised

MOST_COMPARED = 64
"""Tiles whose strongest map is compared with their tags."""

LEAST_COMPARED = 8
"""With fewer tiles, the comparison says nothing."""


class UserCams:
    """Reads the maps of tiles from a folder with one file per tile or per scene.

    A file has C maps (C, h, w) in the order of the classes, raw or normalised and of any stride: `.npy`, an
    `.npz` with one array, or a GeoTIFF with C bands. Its name is that of the tile, e.g.
    `north_00000_00256.npy`, or that of the scene (an image of `dataset=custom`), from which the window of
    the tile is taken. Each tagged class is stretched to 0..1 in each tile.

    Args:
        folder: Folder of the files; its subfolders are searched too.
        reader: Has the sizes of the scenes and the validity of their pixels.
        tagged: The tags of the tiles.

    Raises:
        UserError: The folder is missing or has no maps, or two files have the same name.
    """

    def __init__(self, folder: Path, reader: SceneReader, tagged: TagTable) -> None:
        self._files = cam_files(folder)
        self._folder, self._reader, self._tagged = folder, reader, tagged

    def check(self, tiles: Sequence[Tile]) -> None:
        """Checks before the first CRF that all tiles have maps; says if their order or range looks wrong.

        Raises:
            UserError: Some tiles have no maps, or a file has none of this number of classes.
        """
        without = [tile for tile in tiles if not {tile.name, tile.scene} & self._files.keys()]
        if without:
            raise UserError(
                f"stage.pseudo.cams={self._folder} has no maps of {len(without)} of {len(tiles)} tiles: add "
                f"{without[0].name}.npy, or {without[0].scene}.npy for the whole scene"
            )
        self._compare_with_tags(evenly_spaced(tiles, MOST_COMPARED))

    def _compare_with_tags(self, tiles: Sequence[Tile]) -> None:
        """Prints a line if the strongest maps are no more often of tagged classes than others, or below 0."""
        names, right, by_chance, compared, dark = self._tagged.names, 0, 0.0, 0, 0
        for tile in tiles:
            maps, _ = self._maps(tile)
            peaks, tags = maps.max(axis=(1, 2)), self._tagged.by_name[tile.name]
            dark += int(tags.sum() > 1 and peaks[tags > 0].max() <= 0)
            if peaks.min() < peaks.max() and 0 < tags.sum() < len(tags):
                right += int(tags[peaks.argmax()])
                by_chance += float(tags.mean())
                compared += 1
        if dark:
            console.print(
                f"[yellow]stage.pseudo.cams={self._folder}[/]: in {dark} of {len(tiles)} tiles no map of a "
                "tagged class is above 0, and no pixel gets a class: add a constant to logits"
            )
        if compared >= LEAST_COMPARED and right <= by_chance:
            console.print(
                f"[yellow]stage.pseudo.cams={self._folder}[/]: the strongest map is of a tagged class in "
                f"only {right} of {compared} tiles ({by_chance:.0f} by chance): are the maps in the order "
                f"{', '.join(names)}? Otherwise give their order as dataset.classes",
            )

    def __call__(self, tiles: Sequence[Tile]) -> Iterator[NDArray[np.float32]]:
        """Yields the normalised maps of each tile, (C, H, W) float32 in [0, 1]."""
        tags, valid = self._tagged.by_name, self._reader.valid
        return (normalised(*self._maps(tile), tags[tile.name], valid(tile)) for tile in tiles)

    def _maps(self, tile: Tile) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """The maps (C, h, w) of a tile as they are in its file, and the tile's height and width."""
        size = (tile.height, tile.width)
        if tile.name in self._files:
            return self._read(self._files[tile.name], size, lambda: self._place(tile)), size
        grid = self._reader.grid(tile.scene)
        whole = (grid.height, grid.width)
        return window_of(self._read(self._files[tile.scene], whole, lambda: grid), tile, whole), size

    def _place(self, tile: Tile) -> Grid:
        """Size and georeference of a tile."""
        scene = self._reader.grid(tile.scene)
        if scene.transform.is_identity:
            return scene
        corner = scene.transform * Affine.translation(tile.column, tile.row)
        return Grid(tile.height, tile.width, scene.crs, corner)

    def _read(self, path: Path, size: tuple[int, int], place: Callable[[], Grid]) -> NDArray[np.float32]:
        """The maps (C, h, w) in a file, after a check that they have the aspect ratio of their image."""
        maps = read_maps(path, self._tagged.names, place)
        check_form(maps, size, f"the maps in {path}")
        return maps


def read_maps(
    path: Path, names: Sequence[str], place: Callable[[], Grid] | None = None
) -> NDArray[np.float32]:
    """Reads the maps (C, h, w) of one file, without unpickling; 0 where a GeoTIFF declares nodata.

    Args:
        path: The file.
        names: The C classes, in order.
        place: Gives the size and georeference of the image, which those of a GeoTIFF must match.

    Raises:
        UserError: The file is damaged, does not contain C finite maps, names its bands in another order, or
            lies elsewhere than the image.
    """
    maps: NDArray[Any]
    described: tuple[str | None, ...] = ()
    grid: Grid | None = None
    try:
        if path.suffix.lower() in {".npy", ".npz"}:
            maps = read_array(path)
        else:
            with plain_pixels(), rasterio.open(path, driver="GTiff") as raster:
                check_sidecars(path, raster)
                grid = Grid(raster.height, raster.width, raster.crs, raster.transform)
                maps, described = _without_nodata(raster), raster.descriptions
    except (OSError, ValueError, rasterio.RasterioIOError) as error:
        remedy = "save the array again, np.save(path, cams), alone and not in a dict"
        raise UserError(f"{path} cannot be read as one array of maps: {error}; {remedy}") from error
    if maps.ndim != 3 or len(maps) != len(names) or not maps.size or maps.dtype.kind not in "fiub":
        raise UserError(
            f"{path} holds {maps.dtype} of the shape {maps.shape}: give numbers of the shape "
            f"({len(names)}, height, width), a map for each class in the order {', '.join(names)}"
        )
    if set(described) == set(names) and list(described) != list(names):
        raise UserError(
            f"{path} has the bands {', '.join(map(str, described))}, the classes are {', '.join(names)}: "
            f"give the order of the bands as dataset.classes=[{','.join(map(str, described))}]"
        )
    if grid and place and (difference := misplaced(grid, place())):
        raise UserError(
            f"{path} {difference} its image: warp it to the image's grid, e.g. with gdalwarp, or remove its "
            "georeference if that is wrong"
        )
    if (result := finite_maps(maps)) is None:
        raise UserError(f"{path} holds nan, infinite or huge values: replace them, e.g. by np.nan_to_num")
    return result


def _without_nodata(raster: Any) -> NDArray[Any]:  # noqa: ANN401 - rasterio's own
    """The bands of an open raster, 0 at nodata; the last of four may be a class although labelled opacity."""
    maps: NDArray[Any] = raster.read()
    for band, flags in enumerate(raster.mask_flag_enums, start=1):
        if not {MaskFlags.all_valid, MaskFlags.alpha} & set(flags):
            maps[band - 1][raster.read_masks(band) == 0] = 0
    return maps


def window_of(maps: NDArray[np.float32], tile: Tile, size: tuple[int, int]) -> NDArray[np.float32]:
    """The maps (C, H, W) of a tile, from the maps of its scene at any stride.

    The same as resizing the maps bilinearly to the scene's size and cutting out the window, in less memory.

    Args:
        maps: (C, h, w) float32, maps of the scene.
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
