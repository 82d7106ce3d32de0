"""Writes one prepared scene: its image and its mask of class indices, as plain tiled GeoTIFFs."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from ome.data.palette import UnknownColours
from ome.data.raw import RawLayout
from ome.data.raw_file import RawFile
from ome.data.reference import check_reference, reference_colours
from ome.data.scaling import Limits, scaling_of
from ome.data.scene_index import Scene, SplitName
from ome.errors import UserError
from ome.geo.gdal import plain_pixels
from ome.geo.grid import RGB, Grid
from ome.geo.image_source import ImageSource, source_of
from ome.geo.raster import atomic_raster
from ome.geo.reader import Raster
from ome.ignore import IGNORE

_SOURCE: Final = "OME_SOURCE"
_UNKNOWN: Final = "OME_UNKNOWN"
_OPACITY: Final = "OME_OPACITY"
_IMAGE: Final = "OME_IMAGE"


class SceneJob(NamedTuple):
    """The files of a scene to prepare."""

    scene: str
    split: SplitName
    image: RawFile
    mask: RawFile | None


def named_opacity(file: RawFile, layout: RawLayout) -> int | None:
    """The band that would be opacity, but is in `dataset.channels`; None without."""
    if layout.image.channels or not layout.channels:
        return None
    try:
        with file.open() as raster:
            return raster.opacity if raster.opacity in layout.channels else None
    except UserError:  # raised again when the scene is prepared
        return None


def image_source(prepared: Raster) -> ImageSource:
    """The source of the image that a scene was prepared from."""
    return ImageSource.from_json(json.loads(prepared.tags()[_IMAGE]))


def check_channels(image: RawFile, bands: int, layout: RawLayout) -> None:
    """Refuses an image that lacks bands which the dataset names.

    Raises:
        UserError: It has fewer bands.
    """
    if max(layout.default_channels, default=1) > bands:
        numbers = list(layout.default_channels)
        raise UserError(f"dataset.channels={numbers}: {image} has only {bands} bands")


def write_scene(job: SceneJob, layout: RawLayout, folder: Path) -> tuple[Scene, int | None]:
    """Writes the missing files of a scene; returns its description, and the band that was opacity, if any."""
    image_path, mask_path = f"images/{job.scene}.tif", f"masks/{job.scene}.tif"
    image_source = f"{job.image.fingerprint} {layout.limits}"
    if layout.nodata is not None:
        image_source += f" nodata {layout.nodata}"
    if (band := named_opacity(job.image, layout)) is not None:
        image_source += f" image band {band}"
    if not _is_whole(folder / image_path, image_source):
        with job.image.open(layout.nodata, layout.named_bands) as raster:
            _write_image(folder / image_path, raster, layout.limits, image_source)
    with Raster(folder / image_path, drivers=("GTiff",)) as prepared:
        bands, opacity = prepared.bands, prepared.tags().get(_OPACITY)
        size = prepared.grid.height, prepared.grid.width
    check_channels(job.image, bands, layout)
    band = None if opacity is None else int(opacity)
    if job.mask is None:
        return Scene(job.scene, job.split, *size, bands, image_path, None), band
    mask_source = f"{image_source} {job.mask.fingerprint} {layout.palette} {layout.indices}"
    if not _is_whole(folder / mask_path, mask_source):
        with job.mask.open() as raster, Raster(folder / image_path, drivers=("GTiff",)) as prepared:
            _write_mask(folder / mask_path, job, prepared, raster, layout, mask_source)
    pixels, unknown = _mask_counts(folder / mask_path, layout.palette.num_classes)
    scene = Scene(job.scene, job.split, *size, bands, image_path, mask_path, unknown.pixels, pixels, unknown)
    return scene, band


def _write_image(path: Path, raster: Raster, limits: Limits | None, source: str) -> None:
    """Copies all bands; uncompressed, since training reads small windows in random order."""
    raster.require()
    # With photometric RGB, GDAL would label the fourth band alpha.
    shown = {"interleave": "pixel", "photometric": "RGB" if raster.bands == 3 else "MINISBLACK"}
    scaling = None
    if raster.depth == "uint16":
        scaling = scaling_of(raster, range(1, raster.bands + 1), limits)
    size = 2 * raster.bands * raster.grid.height * raster.grid.width
    with (
        atomic_raster(path, size) as temporary,
        _new_raster(temporary, raster.grid, raster.bands, **shown) as target,
    ):
        for strip in raster.strips():
            row, column, height, width = strip
            pixels = raster.read(*strip)
            window = Window(column, row, width, height)
            target.write(pixels if scaling is None else scaling.to_bytes(pixels), window=window)
            if not raster.all_valid:
                target.write_mask(raster.valid(*strip), window=window)
        opacity = {} if raster.opacity is None else {_OPACITY: raster.opacity}
        target.update_tags(**{_SOURCE: source, _IMAGE: json.dumps(source_of(raster))}, **opacity)


def _write_mask(
    path: Path, job: SceneJob, image: Raster, raster: Raster, layout: RawLayout, source: str
) -> None:
    indices = bool(layout.indices)
    check_reference(job.scene, raster, image.grid, str(job.image), indices=indices)
    palette, width = layout.mask_palette, image.grid.width
    known = next(iter(palette.classes.values()))
    unknown: Counter[RGB] = Counter()
    with (
        atomic_raster(path, 2 * image.grid.height * width) as temporary,
        _new_raster(temporary, image.grid, 1, compress="deflate", nodata=IGNORE) as target,
    ):
        shown = enumerate(layout.palette.classes.values())
        target.write_colormap(1, {index: (*rgb, 255) for index, rgb in shown})
        for row, colours, valid in reference_colours(raster, indices=indices):
            measured = valid & image.valid(row, 0, len(valid), width)
            colours[~measured] = known  # any known colour; the mask is IGNORE there
            encoded = palette.encode(colours)
            unknown.update(encoded.unknown)
            mask = np.where(measured, encoded.mask, IGNORE)
            target.write(mask, 1, window=Window(0, row, width, len(mask)))
        listed = UnknownColours.from_counts(unknown)
        target.update_tags(**{_SOURCE: source, _UNKNOWN: json.dumps([listed.counts, listed.rest])})


@contextmanager
def _new_raster(path: Path, grid: Grid, bands: int, **options: object) -> Iterator[Any]:
    tiling = {"tiled": True, "blockxsize": 256, "blockysize": 256, "bigtiff": "IF_SAFER"}
    profile = {"driver": "GTiff", "count": bands, "dtype": "uint8", **tiling, **grid.profile, **options}
    masks = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
    with plain_pixels(), masks, rasterio.open(path, "w", **profile) as target:
        yield target


def _is_whole(path: Path, source: str) -> bool:
    """Whether a scene file exists, is complete, and was made from that source."""
    try:
        with Raster(path, drivers=("GTiff",)) as raster:
            for strip in raster.strips():
                raster.values(*strip)
            return raster.tags().get(_SOURCE) == source
    except UserError:
        return False


def _mask_counts(path: Path, num_classes: int) -> tuple[tuple[int, ...], UnknownColours]:
    """Counts the pixels of each class in a mask and reads back its unknown colours."""
    counts: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
    with Raster(path, drivers=("GTiff",)) as raster:
        for strip in raster.strips():
            counts += np.bincount(raster.values(*strip).ravel(), minlength=256)
        listed, rest = json.loads(raster.tags()[_UNKNOWN])
    colours: Sequence[tuple[RGB, int]] = [((r, g, b), count) for (r, g, b), count in listed]
    return tuple(counts[:num_classes].tolist()), UnknownColours(tuple(colours), rest)
