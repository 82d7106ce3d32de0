"""A scene of any size -> its class map, by the segmenter that the run has come to."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ome.config.objects import crf_of, crf_threads, hardware
from ome.config.segmenting import read_card, stage_of_configured_network
from ome.data.unseen import open_unseen
from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.geo.mosaic import rasters_in, write_mosaic
from ome.inference.card import SegmenterCard, network_folder
from ome.inference.mapping import MapOptions, map_name, map_scene
from ome.inference.predictor import CrfPredictor, Predictor
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work


def run(work: Work) -> dict[str, Any]:
    """Maps one scene; other processes only wait."""
    if not is_rank_zero():
        return {}
    config, settings = work.config, work.settings
    options = MapOptions(
        **{key: settings[key] for key in ("confidence", "probabilities", "polygons", "simplify")},
        stride=config.prediction.stride,
        batch=config.prediction.batch,
    )
    options.check()
    (stage,) = work.inputs
    folder = network_folder(work.inputs[stage], settings.network)
    card = read_card(config, folder)
    network, machine, prediction = card.load(folder), hardware(config), config.prediction
    predict: Any = Predictor(
        network, machine.device(), prediction.scales, flip=prediction.flip, precision=machine.precision
    )
    if settings.crf:
        predict = CrfPredictor(predict, crf_of(config), card.picture, crf_threads(config))
    path, channels = scene_path(config), _channels(config, card)
    if path.is_dir():
        path, rasters = work.folder / "mosaic.vrt", rasters_in(path)
        write_mosaic(path, rasters, channels)
    with open_unseen(path, channels, config.dataset.get("range") or card.limits) as scene:
        counts = map_scene(scene, map_name(scene_path(config)), card, predict, work.folder, options)
    return {"network": f"{stage}/{folder.name}", **counts}


def scene_path(config: DictConfig) -> Path:
    """The scene that is to be mapped.

    Raises:
        UserError: It is not set, or not there.
    """
    if not config.stage.scene:
        raise UserError(
            "stage.predict.scene is not set: type stage.predict.scene=/path/to/scene.tif, or "
            "a folder of GeoTIFFs"
        )
    path = Path(config.stage.scene)
    if not path.exists():
        raise UserError(f"stage.predict.scene={path} does not exist: check the path")
    return path


def _channels(config: DictConfig, card: SegmenterCard) -> tuple[int, ...]:
    """The scene's bands that the network sees: as typed, or those it was trained on."""
    typed = config.dataset.get("channels")
    if typed and len(typed) != len(card.channels):
        raise UserError(
            f"dataset.channels={list(typed)}: the network was trained on {len(card.channels)} bands, "
            f"{list(card.channels)} of its scenes"
        )
    return tuple(typed or card.channels)


def _sources(config: DictConfig) -> list[Any]:
    path = scene_path(config)
    return [
        str(path.resolve()),
        *(identity(file) for file in (rasters_in(path) if path.is_dir() else [path])),
    ]


STAGE = Stage(
    "predict",
    run,
    requires=stage_of_configured_network,
    config_keys=(
        "prediction",
        "crf",
        "dataset.channels",
        "dataset.range",
        "trainer.accelerator",
        "trainer.precision",
    ),
    external_files=_sources,
    part=lambda config: map_name(scene_path(config)),
    subject=lambda used: used["sources"][0],
)
