"""A scene of any size -> its class map, by a segmenter of the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig

from ome.config.mapping import (
    channels_of,
    map_options,
    name_of_map,
    other_segmenters,
    raster_of_scene,
    scene_of,
    scenes_by_name,
)
from ome.config.objects import hardware, refined
from ome.config.raw_data import nodata_of
from ome.config.segmenting import predictor_of, stage_of_configured_network
from ome.data.byte_image import open_scene
from ome.distributed.collectives import is_rank_zero, rank_zero_value
from ome.files import read_json, write_json
from ome.geo.scene_files import remote_state, scene_files
from ome.geo.scene_list import listed_scenes
from ome.geo.vsi import full_address, scene_at
from ome.inference.card import CARD, SegmenterCard, check_alike
from ome.inference.list_tables import ListTables
from ome.inference.map_files import check_folders
from ome.inference.map_rows import windows_at_a_time
from ome.inference.mapping import map_scene
from ome.inference.predictor import Ensemble
from ome.inference.segmenter_folders import network_folder
from ome.pipeline.artifacts import Artefact, stage_folder
from ome.pipeline.layout import NETWORK
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work


def run(work: Work) -> dict[str, Any]:
    """Maps one scene or a folder of photographs; each process predicts a part of the rows."""
    config, settings = work.config, work.settings
    options = map_options(config)
    options.check()
    scenes, record = scenes_by_name(config, options), work.folder / "maps.json"
    (stage,) = work.inputs
    folder = network_folder(work.inputs[stage], settings.network)
    scales, flip = config.prediction.scales, config.prediction.flip
    card = SegmenterCard.read(folder).for_views(scales, flip=flip, tta=config.prediction.tta)
    windows = windows_at_a_time(config.prediction.batch, card.tile, hardware(config).device())
    options = replace(options, batch=windows)
    others = other_segmenters(config)
    cards = {folder: card} | {other: SegmenterCard.read(other) for other in others}
    check_alike(cards)
    predictors = [predictor_of(config, one, cards[one], scales, flip=flip) for one in (folder, *others)]
    predict: Any = Ensemble(predictors)
    if settings.crf:
        predict = refined(predict, config, card.picture)
    if others or settings.crf:
        card = card.uncalibrated()
    counts: dict[str, Any] = read_json(record) if record.exists() else {}
    for name, path in scenes.items():
        if rank_zero_value(name in counts):
            continue
        with open_scene(
            path,
            channels_of(config, card),
            config.dataset.get("range") or card.limits,
            nodata=card.nodata if config.dataset.get("nodata") is None else config.dataset.nodata,
            allow_external=settings.allow_external,
        ) as scene:
            counts[name] = map_scene(scene, name, card, predict, work.folder, options)
        if is_rank_zero():
            write_json(record, counts)
    if is_rank_zero():
        record.unlink()
    return {
        "network": ", ".join([f"{stage}/{folder.name}", *map(str, others)]),
        **({"maps": counts} if len(scenes) > 1 else counts[next(iter(scenes))]),
    }


class _Scenes(Mapping[str, DictConfig]):
    """The configuration of each scene of a list, created on access, because a list may be long."""

    def __init__(self, config: DictConfig, scenes: Sequence[str]) -> None:
        self._config, self._scenes = config, scenes

    def __getitem__(self, scene: str) -> DictConfig:
        part = self._config.copy()
        part.stage.scene, part.stage.map_name = scene, None  # the name is that of the list's tables
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(self._scenes)

    def __len__(self) -> int:
        return len(self._scenes)


def _scenes_of_list(config: DictConfig) -> _Scenes | None:
    """The configuration of each scene of a list by its path; None if the setting is not a list."""
    scenes = listed_scenes(config.stage.scene or "")
    if scenes is None:
        return None
    map_options(config).check()
    check_folders([*map(scene_at, scenes)])
    _tables(config).check()
    return _Scenes(config, scenes)


def _tables(config: DictConfig) -> ListTables:
    return ListTables(stage_folder(config, STAGE.name), config.stage.scene, config.stage.map_name)


def _conclude(config: DictConfig, mapped: Mapping[str, Artefact], failed: Mapping[str, str]) -> None:
    """Writes the areas of all scenes, and a list of the failed scenes that `predict` can read again."""
    counts = {scene: artefact.manifest.counts for scene, artefact in mapped.items()}
    _tables(config).write(counts, failed)


def _sources(config: DictConfig) -> list[Any]:
    """The address of the scene, and the identities of its files and of the other runs' segmenters."""
    raster = raster_of_scene(config)
    segmenters = [folder / name for folder in other_segmenters(config) for name in (NETWORK, CARD)]
    files = map(identity, [*scene_files(raster), *segmenters])
    return [full_address(scene_of(config)), *files, *remote_state(raster)]


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
    free_keys=("dataset.nodata",),
    external_files=_sources,
    optional_config=nodata_of,
    part=name_of_map,
    parts=_scenes_of_list,
    conclude=_conclude,
    subject=lambda used: used["sources"][0],
)
