"""Writes the procedural town in the raw layout of a real dataset, so that no download is needed."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from scipy.ndimage import maximum_filter, minimum_filter

from ome.data.palette import Palette
from ome.data.raw import RawLayout
from ome.data.raw_source import RawSource
from ome.data.scene_index import SPLITS
from ome.errors import UserError
from ome.files import atomic_path
from ome.geo.gdal import plain_pixels
from ome.progress import track
from ome.synthetic.canvas import METRE
from ome.synthetic.scene import draw_scene

DRAWN: Final = ("impervious_surface", "building", "low_vegetation", "tree", "car", "clutter")
"""The town's classes in the order of `ome.synthetic.canvas`."""

BANDS: Final[Mapping[str, tuple[int, ...]]] = {"rgb": (0, 1, 2), "irrg": (3, 0, 1), "rgbir": (0, 1, 2, 3)}
"""The bands of each kind of image, as indices into red, green, blue, near infrared."""

EROSION: Final = 3
"""Pixels that ISPRS removes from its reference on both sides of every boundary."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Date of all files in the archives, so that their bytes do not depend on the day."""


def write_town(layout: RawLayout, raw: Path, size: int, seed: int) -> None:
    """Draws the scenes of a layout and writes them to its archives.

    Every kind of image and of reference in the layout is written. The same arguments always give the same
    bytes, and a scene does not depend on the other scenes.

    Args:
        layout: Archives, file names, colours and scene lists, with bands of `BANDS` and classes of `DRAWN`.
        raw: Folder for the archives.
        size: Side of a scene in pixels of 25 cm.
        seed: Seed of the random generators.

    Raises:
        UserError: The layout has bands, classes or a reference that the town does not have, or has no
            archives or scene lists; or one of the archives exists and is not of the town.
    """
    colours = check_layout(layout)
    names = [name for split in SPLITS for name in getattr(layout.split, split)]
    rng = np.random.default_rng(seed)
    sun, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.3)
    files: dict[str, dict[str, bytes]] = {}
    for position, name in enumerate(track(names, "draw the town: scenes", total=len(names))):
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        pixels, label = draw_scene(generator, size, sun, elevation)
        # In UTM zone 33, each scene east of the previous one.
        east = 366_000 + position * size / METRE
        transform = Affine(1 / METRE, 0, east, 0, -1 / METRE, 5_808_000)
        for kind, source in layout.images.items():
            content = _geotiff(pixels[..., BANDS[kind]], transform)
            files.setdefault(str(source.archive), {})[source.file_name(name)] = content
        for kind, source in layout.masks.items():
            painted = colours[label]
            if kind == "eroded":
                painted[boundaries(label, EROSION)] = layout.palette.ignored["boundary"]
            files.setdefault(str(source.archive), {})[source.file_name(name)] = _geotiff(painted, transform)
    for archive in files:
        _check_replaceable(raw / archive)
    for archive, members in files.items():
        with atomic_path(raw / archive) as temporary:
            _write_zip(temporary, members)


def check_layout(layout: RawLayout) -> NDArray[np.uint8]:
    """Refuses what the town cannot draw.

    Args:
        layout: The facts about its scenes.

    Returns:
        (6, 3) uint8, the colours of what it draws.

    Raises:
        UserError: It cannot draw such images or masks, or the scenes are not listed.
    """
    palette: Palette = layout.palette
    known = palette.classes | palette.ignored
    sources: Iterable[RawSource] = [*layout.images.values(), *layout.masks.values()]
    lists = [getattr(layout.split, split) for split in SPLITS]
    if wrong := [kind for kind in layout.images if kind not in BANDS]:
        raise UserError(f"dataset.images: the town has no {wrong[0]}; it has {', '.join(BANDS)}")
    if wrong := [kind for kind in layout.masks if kind not in {"full", "eroded"}]:
        raise UserError(f"dataset.masks: the town has no {wrong[0]}; it has full, eroded")
    if wrong := [name for name in (*DRAWN, "boundary") if name not in known]:
        raise UserError(f"dataset.classes and dataset.ignored lack {wrong[0]}, which the town draws")
    if not all(isinstance(source.archive, str) for source in sources):
        raise UserError("dataset.images and dataset.masks: the town needs the name of an archive for each")
    if not any(lists) or any(isinstance(listing, Path) for listing in lists):
        raise UserError("dataset.split: list the scenes of the town, such as dataset.split.train=[2_10]")
    return np.asarray([known[name] for name in DRAWN], dtype=np.uint8)


def boundaries(label: NDArray[np.uint8], radius: int) -> NDArray[np.bool_]:
    """Marks the pixels that have a pixel of another class within a radius.

    Args:
        label: (H, W) uint8.
        radius: In pixels.

    Returns:
        (H, W) bool.
    """
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = rows**2 + columns**2 <= radius**2
    least, largest = (of(label, footprint=disc, mode="nearest") for of in (minimum_filter, maximum_filter))
    return np.asarray(least != largest)


def _geotiff(pixels: NDArray[np.uint8], transform: Affine) -> bytes:
    """Encodes pixels (H, W, B) uint8 as GeoTIFF."""
    height, width, bands = pixels.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "height": height, "width": width, "count": bands}
    profile |= {"crs": "EPSG:32633", "transform": transform, "interleave": "pixel"}
    profile |= {"photometric": "RGB" if bands == 3 else "MINISBLACK"}
    with plain_pixels(), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(pixels.transpose(2, 0, 1))
        return bytes(memory.getbuffer())


def _check_replaceable(path: Path) -> None:
    """Raises an error if a file exists that is not an archive of the town."""
    if not path.exists():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            is_town = all(entry.date_time == _EPOCH for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        is_town = False
    if not is_town:
        raise UserError(
            f"{path} is not an archive of the town and would be replaced: choose another dataset.raw=..."
        )


def _write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=1)
