"""Counts tiles before any scene is prepared, from image headers and the table of tags."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Final

from omegaconf import DictConfig

from ome.config.raw_data import is_folder_of_images, raw_fault, raw_folder, raw_layout
from ome.data.image_tags import read_tags
from ome.data.prepare import scene_jobs
from ome.data.scene_index import Scene, SceneIndex
from ome.data.scene_writer import SceneJob
from ome.data.tags import TagTable
from ome.data.tiles import evenly_spaced
from ome.geo.mosaic import Mosaic
from ome.geo.raster_file import UnreadableError
from ome.geo.raster_folder import rasters_in, scenes_in
from ome.geo.reader import Raster
from ome.geo.stac import raster_of
from ome.geo.vsi import SceneAddress, scene_at
from ome.pipeline.artifacts import Artefact

if TYPE_CHECKING:
    from ome.inference.card import SegmenterCard

MOST: Final = 1000
"""Largest number of image headers to read; the other images are assumed to have the median size."""


def tagged_tiles(config: DictConfig, index: SceneIndex | None) -> tuple[SceneIndex, TagTable] | None:
    """The scenes and tags that `prepare` and `labels` will write, including tiles that are all nodata.

    Args:
        config: The composed configuration.
        index: The prepared scenes, if they exist.

    Returns:
        None where the tags are derived from masks, which would have to be read.

    Raises:
        UserError: The table or the folder is wrong, with the message of `prepare`.
    """
    table = config.dataset.get("tags")
    if not table or (index is None and (not is_folder_of_images(config) or raw_fault(config))):
        return None
    index = index or _index(config)
    return index, read_tags(Path(table), index)


def _index(config: DictConfig) -> SceneIndex:
    layout = raw_layout(config)
    jobs = scene_jobs(layout, Path(raw_folder(config)))
    sizes = {job.scene: size for job in evenly_spaced(jobs, MOST) if (size := _size(job)) is not None}
    usual = median_low(sizes.values()) if sizes else (config.dataset.tile.size,) * 2
    scenes: list[Scene] = []
    for job in jobs:
        height, width = sizes.get(job.scene, usual)
        scenes.append(Scene(job.scene, job.split, height, width, 0, "", str(job.mask) if job.mask else None))
    channels = layout.default_channels or (1, 2, 3)
    return SceneIndex(Path(), tuple(scenes), layout.palette, layout.name, channels)


def _size(job: SceneJob) -> tuple[int, int] | None:
    try:
        with job.image.open() as raster:
            return raster.grid.height, raster.grid.width
    except UnreadableError:
        return None  # `prepare` names all of them


def card_of_maps(config: DictConfig, inputs: Mapping[str, Artefact]) -> "SegmenterCard | None":
    """The card of the segmenter that maps scenes; None where it has none.

    Args:
        config: Configuration of the stage.
        inputs: Its inputs.
    """
    from ome.inference.card import CARD, SegmenterCard  # noqa: PLC0415 - loads torch
    from ome.inference.segmenter_folders import network_folder  # noqa: PLC0415 - loads torch

    (stage,) = inputs
    folder = network_folder(inputs[stage].folder, config.stage.network)
    return SegmenterCard.read(folder) if (folder / CARD).exists() else None


def map_sizes(settings: DictConfig) -> list[tuple[int, int]]:
    """Height and width of the images that stage predict will map.

    Args:
        settings: Settings of the stage: `scene`, `asset` and `allow_external`.

    Raises:
        UserError: The scene cannot be opened.
    """
    scene = raster_of(scene_at(settings.scene), settings.asset, allow_external=settings.allow_external)
    return [_opened_size(path) for path in scenes_in(scene)]


def _opened_size(scene: SceneAddress) -> tuple[int, int]:
    if isinstance(scene, Path) and scene.is_dir():
        with Mosaic(rasters_in(scene), str(scene)) as mosaic:
            return mosaic.grid.height, mosaic.grid.width
    with Raster(scene) as raster:
        return raster.grid.height, raster.grid.width
