"""Preparation: converts the files of a raw dataset to tiled GeoTIFF scenes and writes their index."""

from collections.abc import Sequence
from pathlib import Path

from ome.data.archives import RawFiles
from ome.data.file_names import check_apart
from ome.data.image_bands import checked_bands
from ome.data.raw import RawLayout, raw_files
from ome.data.raw_file import RawFile
from ome.data.raw_split import resolve_split
from ome.data.scene_index import Scene, SceneIndex
from ome.data.scene_writer import SceneJob, named_opacity, write_scene
from ome.errors import UserError, few
from ome.geo.raster_file import UnreadableError
from ome.geo.reader import Raster
from ome.progress import track


def prepare_scenes(layout: RawLayout, raw: Path, folder: Path, *, skip_broken: bool = False) -> SceneIndex:
    """Turns a raw dataset into `images/<scene>.tif`, `masks/<scene>.tif` and `index.json`.

    Images keep all bands and the georeference. They are uncompressed, in blocks of 256 pixels, so that every
    window is read equally fast; 16-bit values are scaled to 8 bits (see `ome.data.scaling`). Masks hold the
    class index, or 255 for ignored and unknown colours.

    Existing scenes that were made from the same files are kept.

    Args:
        layout: The layout of the dataset.
        raw: The raw folder.
        folder: Output folder.
        skip_broken: Skip scenes whose image or mask cannot be read, unless no scene can.

    Returns:
        The index, also written to the folder. Its `unknown` lists the colours that are not in the palette,
        its `broken` the skipped scenes.

    Raises:
        UserError: When an archive or a listed scene is missing, files are damaged, or a mask does not have
            the size of its image.
    """
    if not raw.is_dir():
        raise UserError(
            f"the raw folder {raw} does not exist: give the folder of the data by dataset.raw=..."
        )
    jobs = scene_jobs(layout, raw)
    # Not `layout.channels`: another command may select other channels from these scenes.
    channels = layout.image.channels
    if not (channels or skip_broken):
        channels = checked_bands(jobs, layout)
    scenes: list[Scene] = []
    opacity: set[int] = set()
    unreadable: dict[str, UnreadableError] = {}
    for job in track(jobs, f"prepare {layout.name}: scenes", total=len(jobs)):
        try:
            scene, band = write_scene(job, layout, folder)
        except UnreadableError as error:
            unreadable[job.scene] = error
        else:
            scenes.append(scene)
            opacity |= {band} if band else set()
    if unreadable and not (skip_broken and scenes):
        raise _together(list(unreadable.values()), len(jobs))
    if skip_broken and not channels:  # of a broken image, the header may be whole
        channels = checked_bands([job for job in jobs if job.scene not in unreadable], layout)
    facts = layout.palette, layout.name, channels, tuple(unreadable), tuple(sorted(opacity))
    index = SceneIndex(folder, tuple(scenes), *facts)
    _check_valid(index)
    index.write()
    return index


def _check_valid(index: SceneIndex) -> None:
    """Refuses training scenes that have no valid pixel at all."""
    for scene in index.split("train"):
        with Raster(index.folder / scene.image, drivers=("GTiff",)) as raster:
            if raster.all_valid or any(raster.valid(*strip).any() for strip in raster.strips()):
                return
    raise UserError(
        f"no pixel of {len(index.split('train'))} training scenes is valid, all are nodata or transparent: "
        "correct the files' nodata value, mask or opacity, or type dataset.nodata=VALUE"
    )


def masks_without_image(layout: RawLayout, raw: Path) -> list[str]:
    """Scenes with a reference mask but no image, if the list of scenes comes from the images."""
    if not layout.split.folders and layout.split.numeric is None:
        return []
    images, masks = raw_files(layout, raw)
    return [] if masks is None else [scene for scene in masks.scenes() if images.find(scene) is None]


def names_opacity(layout: RawLayout, raw: Path) -> bool:
    """Whether `dataset.channels` includes a band that would otherwise be opacity: scenes then differ."""
    if layout.image.channels or not layout.channels:
        return False
    images = RawFiles(layout.image, raw)
    files = (images.find(scene) for scene in images.scenes())
    return any(named_opacity(file, layout) is not None for file in files if file is not None)


def _together(unreadable: Sequence[UnreadableError], total: int) -> UserError:
    """One error for all files that cannot be read."""
    if len(unreadable) == 1:
        return unreadable[0]
    listed = "; ".join(str(error) for error in unreadable[:5]) + ("; ..." if len(unreadable) > 5 else "")
    return UserError(
        f"{len(unreadable)} of {total} scenes cannot be read: {listed}; "
        "stage.prepare.broken=skip leaves them out"
    )


def scene_jobs(layout: RawLayout, raw: Path) -> list[SceneJob]:
    """Finds the files of every listed scene before any work begins.

    Raises:
        UserError: When an archive or a listed scene is missing.
    """
    images, masks = raw_files(layout, raw)
    listed = resolve_split(layout.split, raw, images)
    check_apart((scene for scene, _ in listed), f"{raw}: the scenes")
    file_of = {scene: images.find(scene) for scene, _ in listed}
    _require_all("image", file_of, images)
    mask_of = {scene: masks.find(scene) if masks else None for scene, _ in listed}
    if masks and not layout.partial:
        _require_all("reference mask", mask_of, masks)
    jobs = [
        SceneJob(scene, split, image, mask_of[scene]) for scene, split in listed if (image := file_of[scene])
    ]
    for job in jobs:
        if job.image == job.mask:
            raise UserError(f"scene {job.scene}: {job.image} matches both the image and the mask pattern")
    return jobs


def _require_all(kind: str, file_of: dict[str, RawFile | None], files: RawFiles) -> None:
    missing = [scene for scene, file in file_of.items() if file is None]
    if not missing:
        return
    example = files.source.file_name(missing[0])
    message = (
        f"{len(missing)} of {len(file_of)} scenes have no {kind} in {files.where}: {few(missing)} (e.g. "
        f"{example}); complete the data, or list what you have by dataset.split.train=... and "
        "dataset.split.test=..."
    )
    if kind != "image" and len(missing) == len(file_of):
        message += ", or type dataset.reference=null dataset.tags=TABLE to train without masks"
    if all(scene.isdecimal() for scene in missing):
        # YAML and Hydra read 2_10 as the number 210.
        message += "; names with an underscore need quotes, as in 'dataset.split.train=[\"2_10\"]'"
    raise UserError(message)
