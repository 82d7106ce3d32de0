"""Preparation: from the files of a raw dataset to plain tiled GeoTIFF scenes and their index."""

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

from ome.data.archives import RawFiles
from ome.data.palette import UnknownColours
from ome.data.raw import RawLayout, raw_files
from ome.data.raw_file import RawFile
from ome.data.raw_split import resolve_split
from ome.data.reference import check_reference, reference_colours
from ome.data.scaling import Limits, scaling_tables, to_bytes
from ome.data.scene_index import Scene, SceneIndex, SplitName
from ome.errors import UserError
from ome.files import atomic_path
from ome.geo.gdal import plain_pixels
from ome.geo.grid import RGB, Grid
from ome.geo.raster import check_written
from ome.geo.reader import Raster, UnreadableError
from ome.ignore import IGNORE
from ome.progress import console, track

_SOURCE: Final = "OME_SOURCE"
_UNKNOWN: Final = "OME_UNKNOWN"
_OPACITY: Final = "OME_OPACITY"


class _Job(NamedTuple):
    """What is to be made of one scene."""

    scene: str
    split: SplitName
    image: RawFile
    mask: RawFile | None


def prepare_scenes(layout: RawLayout, raw: Path, folder: Path, *, skip_broken: bool = False) -> SceneIndex:
    """Turns a raw dataset into `images/<scene>.tif`, `masks/<scene>.tif` and `index.json`.

    Images keep all their bands and their georeference, uncompressed and in blocks of 256, so that a window
    costs the same wherever it lies; values of 16 bits are scaled to 8 (see `ome.data.scaling`). Masks hold
    the class index, or 255 for ignored and unknown colours.
    Scenes that the folder already has, made from the same files, are left as they are.

    Args:
        layout: The facts of the dataset.
        raw: The raw folder.
        folder: Where the scenes go.
        skip_broken: Leave out scenes whose image or mask cannot be read, as long as others can.

    Returns:
        The index, also written to the folder. Its `unknown` lists the colours that the palette does not name,
        its `broken` the scenes that were left out.

    Raises:
        UserError: When an archive or a listed scene is missing, files are damaged, or a mask does not have
            the size of its image.
    """
    if not raw.is_dir():
        raise UserError(
            f"the raw folder {raw} does not exist: give the folder of the data by dataset.raw=..."
        )
    jobs = _plan(layout, raw)
    scenes: list[Scene] = []
    unreadable: dict[str, UnreadableError] = {}
    for job in track(jobs, f"prepare {layout.name}: scenes", total=len(jobs)):
        try:
            scenes.append(_prepare_scene(job, layout, folder))
        except UnreadableError as error:
            unreadable[job.scene] = error
    if unreadable and not (skip_broken and scenes):
        raise _together(list(unreadable.values()), len(jobs))
    whole = [job for job in jobs if job.scene not in unreadable]
    # Not `layout.channels`: another command may choose otherwise, and reads these scenes as they are.
    channels = layout.image.channels or _shared_bands(whole, layout.channels)
    index = SceneIndex(
        folder,
        tuple(scenes),
        layout.palette,
        layout.name,
        channels,
        tuple(unreadable),
        _opacity_of(folder, scenes),
    )
    index.write()
    return index


def names_opacity(layout: RawLayout, raw: Path) -> bool:
    """Whether `dataset.channels` names a band that is opacity otherwise, so that scenes depend on it."""
    if layout.image.channels or not layout.channels:
        return False
    images = RawFiles(layout.image, raw)
    files = (images.find(scene) for scene in images.scenes())
    return any(_named_opacity(file, layout) is not None for file in files if file is not None)


def _named_opacity(file: RawFile, layout: RawLayout) -> int | None:
    """The band that is opacity, but for `dataset.channels`, which names it."""
    if layout.image.channels or not layout.channels:
        return None
    try:
        with file.open() as raster:
            return raster.opacity if raster.opacity in layout.channels else None
    except UserError:  # said where the scene is prepared
        return None


def _opacity_of(folder: Path, scenes: Sequence[Scene]) -> tuple[int, ...]:
    """The bands that scenes were prepared with as opacity."""
    bands: set[int] = set()
    for scene in scenes:
        with Raster(folder / scene.image, drivers=("GTiff",)) as raster:
            bands |= {int(band) for band in [raster.tags().get(_OPACITY)] if band is not None}
    return tuple(sorted(bands))


def _together(unreadable: Sequence[UnreadableError], total: int) -> UserError:
    """One error for all files that cannot be read."""
    if len(unreadable) == 1:
        return unreadable[0]
    listed = "; ".join(str(error) for error in unreadable[:5]) + ("; ..." if len(unreadable) > 5 else "")
    return UserError(
        f"{len(unreadable)} of {total} scenes cannot be read: {listed}; "
        "stage.prepare.broken=skip leaves them out"
    )


def _shared_bands(jobs: Sequence[_Job], chosen: tuple[int, ...]) -> tuple[int, ...]:
    """The bands that show something; where images differ in them, none, as long as some were chosen."""
    examples: dict[tuple[int, ...], list[RawFile]] = {}
    misnamed: Counter[int] = Counter()
    named: Counter[int] = Counter()
    for job in jobs:
        with job.image.open() as raster:
            examples.setdefault(raster.shown_bands, []).append(job.image)
            misnamed.update([raster.image_called_opacity] if raster.image_called_opacity else [])
            named.update([raster.opacity] if raster.opacity in chosen else [])
    for band, count in named.items():
        console.print(
            f"[yellow]band {band} of {count} images is opacity[/], but dataset.channels names it: it is "
            "taken for image, and says nothing of where an image was measured",
            highlight=False,
        )
    for band, count in misnamed.items():
        console.print(
            f"[yellow]band {band} of {count} images is called opacity by its file[/], but holds an image: it "
            "is kept as a band",
            highlight=False,
        )
    if len(examples) > 1 and chosen:
        return ()
    if len(examples) > 1:
        kinds = " and ".join(
            f"{len(files)} with the bands {list(bands)} (e.g. {files[0]})"
            for bands, files in examples.items()
        )
        remedy = "convert them, or choose bands that all have, e.g. dataset.channels=[1]"
        raise UserError(f"there are images {kinds}: {remedy}")
    return next(iter(examples))


def _plan(layout: RawLayout, raw: Path) -> list[_Job]:
    """Finds the files of every listed scene before any work begins."""
    images, masks = raw_files(layout, raw)
    listed = resolve_split(layout.split, raw, images)
    file_of = {scene: images.find(scene) for scene, _ in listed}
    _require_all("image", file_of, images)
    found_masks = {scene: masks.find(scene) if masks else None for scene, _ in listed}
    if masks and not layout.partial:
        _require_all("reference mask", found_masks, masks)
    jobs = [
        _Job(scene, split, image, found_masks[scene]) for scene, split in listed if (image := file_of[scene])
    ]
    for job in jobs:
        if job.image == job.mask:
            raise UserError(f"scene {job.scene}: {job.image} is found both as image and as reference mask")
    return jobs


def _require_all(kind: str, file_of: dict[str, RawFile | None], files: RawFiles) -> None:
    missing = [scene for scene, file in file_of.items() if file is None]
    if not missing:
        return
    first = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    example = files.source.file_name(missing[0])
    message = (
        f"{len(missing)} of {len(file_of)} scenes have no {kind} in {files.where}: {first} (e.g. {example});"
        " complete the data, or list what you have by dataset.split.train=... and dataset.split.test=..."
    )
    if all(scene.isdecimal() for scene in missing):
        # YAML and Hydra read 2_10 as the number 210.
        message += "; names with an underscore need quotes, as in 'dataset.split.train=[\"2_10\"]'"
    raise UserError(message)


def _prepare_scene(job: _Job, layout: RawLayout, folder: Path) -> Scene:
    """Writes what is missing of one scene and describes it."""
    image_path, mask_path = f"images/{job.scene}.tif", f"masks/{job.scene}.tif"
    image_source = f"{job.image.fingerprint} {layout.limits}"
    if layout.nodata is not None:
        image_source += f" nodata {layout.nodata}"
    if (band := _named_opacity(job.image, layout)) is not None:
        image_source += f" image band {band}"
    if not _is_whole(folder / image_path, image_source):
        with job.image.open(layout.nodata, layout.named_bands) as raster:
            _write_image(folder / image_path, raster, layout.limits, image_source)
    with Raster(folder / image_path, drivers=("GTiff",)) as prepared:
        grid, bands = prepared.grid, prepared.bands
    if max(layout.default_channels, default=1) > bands:
        numbers = list(layout.default_channels)
        raise UserError(f"dataset.channels={numbers}: {job.image} has only {bands} bands")
    if job.mask is None:
        return Scene(job.scene, job.split, grid.height, grid.width, bands, image_path, None)
    mask_source = f"{image_source} {job.mask.fingerprint} {layout.palette} {layout.indices}"
    if not _is_whole(folder / mask_path, mask_source):
        with job.mask.open() as raster, Raster(folder / image_path, drivers=("GTiff",)) as prepared:
            _write_mask(folder / mask_path, job, prepared, raster, layout, mask_source)
    class_pixels, unknown = _mask_counts(folder / mask_path, layout.palette.num_classes)
    return Scene(
        job.scene,
        job.split,
        grid.height,
        grid.width,
        bands,
        image_path,
        mask_path,
        unknown.pixels,
        class_pixels,
        unknown,
    )


def _write_image(path: Path, raster: Raster, limits: Limits | None, source: str) -> None:
    """Copies all bands; uncompressed, since training reads small windows in random order."""
    raster.require()
    # GDAL would take the fourth band of an RGB image for opacity.
    shown = {"interleave": "pixel", "photometric": "RGB" if raster.bands == 3 else "MINISBLACK"}
    tables = None
    if raster.depth == "uint16":
        tables = scaling_tables(raster, range(1, raster.bands + 1), limits)
    with atomic_path(path) as temporary:
        with _new_raster(temporary, raster.grid, raster.bands, **shown) as target:
            for strip in raster.strips():
                row, column, height, width = strip
                pixels = raster.read(*strip)
                window = Window(column, row, width, height)
                target.write(pixels if tables is None else to_bytes(pixels, tables), window=window)
                if not raster.all_valid:
                    target.write_mask(raster.valid(*strip), window=window)
            opacity = {} if raster.opacity is None else {_OPACITY: raster.opacity}
            target.update_tags(**{_SOURCE: source}, **opacity)
        check_written(temporary)


def _write_mask(path: Path, job: _Job, image: Raster, raster: Raster, layout: RawLayout, source: str) -> None:
    indices = bool(layout.indices)
    check_reference(job.scene, raster, image.grid, str(job.image), indices=indices)
    palette, width = layout.mask_palette, image.grid.width
    known = next(iter(palette.classes.values()))
    unknown: Counter[RGB] = Counter()
    with atomic_path(path) as temporary:
        with _new_raster(temporary, image.grid, 1, compress="deflate", nodata=IGNORE) as target:
            shown = enumerate(layout.palette.classes.values())
            target.write_colormap(1, {index: (*rgb, 255) for index, rgb in shown})
            for row, colours, valid in reference_colours(raster, indices=indices):
                measured = valid & image.valid(row, 0, len(valid), width)
                colours[~measured] = known  # counts for nothing below
                encoded = palette.encode(colours)
                unknown.update(encoded.unknown)
                mask = np.where(measured, encoded.mask, IGNORE)
                target.write(mask, 1, window=Window(0, row, width, len(mask)))
            listed = UnknownColours.from_counts(unknown)
            target.update_tags(**{_SOURCE: source, _UNKNOWN: json.dumps([listed.counts, listed.rest])})
        check_written(temporary)


@contextmanager
def _new_raster(path: Path, grid: Grid, bands: int, **options: object) -> Iterator[Any]:
    tiling = {"tiled": True, "blockxsize": 256, "blockysize": 256, "bigtiff": "IF_SAFER"}
    profile = {"driver": "GTiff", "count": bands, "dtype": "uint8", **tiling, **grid.profile, **options}
    masks = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
    with plain_pixels(), masks, rasterio.open(path, "w", **profile) as target:
        yield target


def _is_whole(path: Path, source: str) -> bool:
    """Whether a scene file exists, was made from that source and can be read to its end."""
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
