"""The items to be tagged: the images of a folder, or windows of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ome.data.archives import RawFiles
from ome.data.file_names import check_apart
from ome.data.folder import image_names
from ome.data.raw_file import RawFile
from ome.data.raw_source import ANY_IMAGE
from ome.data.tiles import Tile, tile_scene
from ome.errors import UserError
from ome.progress import track

Key = str | Tile
"""Identifies a row of the table: the name of an image without its suffix, or a window."""


@dataclass(frozen=True)
class Item:
    """An image or a window to be tagged.

    Attributes:
        file: File of the image.
        image: Name of the image without its suffix.
        tile: The window; None for the whole image.
    """

    file: RawFile
    image: str
    tile: Tile | None = None

    @property
    def key(self) -> Key:
        """The key of its row in the table."""
        return self.tile or self.image

    @property
    def title(self) -> str:
        """Its name on the page."""
        if self.tile is None:
            return self.file.name
        return f"{self.file.name}, row {self.tile.row}, column {self.tile.column}"


def find_images(folder: Path) -> list[Item]:
    """The images of a folder as `dataset=custom` finds them, in order of their names.

    Raises:
        UserError: The folder does not exist, has no image, or has two of one name, see `check_apart`.
    """
    names = image_names(folder, "ome tags")
    check_apart(names, f"{folder}: the images")
    files = RawFiles(ANY_IMAGE, folder)
    files_of = ((name, files.find(name)) for name in names)
    return [Item(file, name) for name, file in files_of if file is not None]


def windows_of(images: Iterable[Item], size: int, windows: Iterable[Tile] = ()) -> list[Item]:
    """Windows of images: a grid that covers each image, as in training, and the windows of a table.

    A window of the table replaces one of the grid with the same upper left corner.

    Args:
        images: Whole images.
        size: Side of the grid's windows in pixels.
        windows: Windows of the table, on the grid or not; those of other images are ignored.

    Raises:
        UserError: An image cannot be read, or a window of the table lies outside its image.
    """
    images = list(images)
    by_image: dict[str, set[Tile]] = {}
    for tile in windows:
        by_image.setdefault(tile.scene, set()).add(tile)
    items = []
    for item in track(images, "sizes of images", len(images)):
        with item.file.open() as raster:
            height, width = raster.grid.height, raster.grid.width
        in_table = by_image.get(item.image, set())
        for tile in in_table:
            if tile.row + tile.height > height or tile.column + tile.width > width:
                raise UserError(
                    f"the table has a window {tile.name} of {tile.height} x {tile.width} pixels, and "
                    f"{item.file} has only {height} x {width}: correct the row"
                )
        taken = {tile.name for tile in in_table}  # windows with one corner have one name
        grid = tile_scene(item.image, height, width, size, size)
        tiles = in_table.union(tile for tile in grid if tile.name not in taken)
        items += [Item(item.file, item.image, tile) for tile in sorted(tiles)]
    return items
