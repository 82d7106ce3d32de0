"""Reads the settings of maps: scenes, bands, files to write, and further runs."""

from pathlib import Path

from omegaconf import DictConfig
from rich.markup import escape

from ome.errors import UserError
from ome.geo.raster_folder import other_rasters_in, scenes_in
from ome.geo.stac import raster_of
from ome.geo.vsi import SceneAddress, scene_at
from ome.inference.card import SegmenterCard
from ome.inference.map_files import check_names, map_name
from ome.inference.map_rows import MapOptions
from ome.inference.segmenter_folders import trained_folder
from ome.pipeline.artifacts import as_list
from ome.progress import console


def map_options(config: DictConfig) -> MapOptions:
    """What is written of each scene."""
    outputs = ("confidence", "probabilities", "polygons", "simplify")
    return MapOptions(**{key: config.stage[key] for key in outputs}, stride=config.prediction.stride)


def other_segmenters(config: DictConfig) -> list[Path]:
    """The folders of the other runs' segmenters, whose probabilities are averaged with this run's.

    Raises:
        UserError: A run does not exist, has no such segmenter, or is named twice.
    """
    runs = [Path(config.run_dir), *map(Path, as_list(config.stage.others))]
    for place, run in enumerate(runs):
        if run.resolve() in [other.resolve() for other in runs[:place]]:
            raise UserError(f"the run {run} is named twice, and would count twice in the mean: name it once")
    return [trained_folder(run, config.stage.network) for run in runs[1:]]


def scene_of(config: DictConfig) -> SceneAddress:
    """The scene to map, as the user typed it.

    Raises:
        UserError: It is not set or does not exist.
    """
    if not config.stage.scene:
        raise UserError(
            "stage.predict.scene is not set: type stage.predict.scene=/path/to/scene.tif, or "
            "a folder of GeoTIFFs, a list of scenes (.txt), or a pattern"
        )
    scene = scene_at(config.stage.scene)
    if isinstance(scene, Path) and not scene.exists():
        raise UserError(f"the scene {scene} does not exist: check the path")
    return scene


def raster_of_scene(config: DictConfig) -> SceneAddress:
    """The raster of the scene; for a STAC item, one of its assets."""
    settings = config.stage
    return raster_of(scene_of(config), settings.asset, allow_external=settings.allow_external)


def name_of_map(config: DictConfig) -> str:
    """The name of the map: that of the settings, or the scene's."""
    name = map_name(scene_of(config))  # also where another is typed, since it checks the scene's
    return config.stage.map_name or name


def scenes_by_name(config: DictConfig, options: MapOptions) -> dict[str, SceneAddress]:
    """The scenes to map, by the names of their maps."""
    raster = raster_of_scene(config)
    scenes = scenes_in(raster)
    check_names(scenes, options)
    if isinstance(raster, Path) and raster.is_dir() and (others := other_rasters_in(raster)):
        console.print(
            f"[yellow]{len(others)} rasters in {escape(str(raster))} are left out[/], the first is "
            f"{escape(others[0])}: convert them to GeoTIFF, gdal_translate IN OUT"
        )
    if scenes == [raster]:
        return {name_of_map(config): raster}
    return {map_name(path): path for path in scenes}


def channels_of(config: DictConfig, card: SegmenterCard) -> tuple[int, ...]:
    """The bands of the scene that the network takes: those of the setting, or those it was trained on."""
    typed = config.dataset.get("channels")
    if typed and len(typed) != len(card.channels):
        raise UserError(
            f"dataset.channels={list(typed)}: the network was trained on {len(card.channels)} bands, "
            f"{list(card.channels)} of its scenes"
        )
    return tuple(typed or card.channels)
