"""A scene of any size -> its class map, by the segmenter that the run has come to."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ome.config.objects import crf_of, crf_threads, hardware
from ome.config.raw_data import nodata_of
from ome.config.segmenting import read_card, stage_of_configured_network
from ome.data.byte_image import open_scene
from ome.distributed.collectives import is_rank_zero, rank_zero_value
from ome.errors import UserError
from ome.files import read_json, write_json, write_text
from ome.geo.mosaic import scenes_in
from ome.geo.scene_files import scene_files
from ome.geo.scene_list import listed_scenes, name_of_list
from ome.inference.card import SegmenterCard, network_folder
from ome.inference.map_rows import MapOptions
from ome.inference.mapping import check_folders, check_names, map_name, map_scene
from ome.inference.predictor import CrfPredictor, Predictor
from ome.inference.total_areas import write_total_areas
from ome.pipeline.artifacts import Artefact, stage_folder
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.progress import console


def run(work: Work) -> dict[str, Any]:
    """Maps one scene, of whose rows each process predicts a part."""
    config, settings = work.config, work.settings
    options = _options(config)
    options.check()
    scenes, record = scenes_in(scene_path(config)), work.folder / "maps.json"
    check_names(scenes, options)
    (stage,) = work.inputs
    folder = network_folder(work.inputs[stage], settings.network)
    card = read_card(config, folder)
    network, machine, prediction = card.load(folder), hardware(config), config.prediction
    predict: Any = Predictor(
        network, machine.device(), prediction.scales, flip=prediction.flip, precision=machine.precision
    )
    if settings.crf:
        predict = CrfPredictor(predict, crf_of(config), card.picture, crf_threads(config))
    counts: dict[str, Any] = read_json(record) if record.exists() else {}
    for path in scenes:
        if rank_zero_value(map_name(path) in counts):
            continue
        with open_scene(
            path,
            _channels(config, card),
            config.dataset.get("range") or card.limits,
            nodata=config.dataset.get("nodata"),
            allow_external=settings.allow_external,
        ) as scene:
            counts[map_name(path)] = map_scene(scene, map_name(path), card, predict, work.folder, options)
        if is_rank_zero():
            write_json(record, counts)
    if is_rank_zero():
        record.unlink()
    return {
        "network": f"{stage}/{folder.name}",
        **({"maps": counts} if len(scenes) > 1 else counts[map_name(scenes[0])]),
    }


def _options(config: DictConfig) -> MapOptions:
    made = ("confidence", "probabilities", "polygons", "simplify")
    return MapOptions(
        **{key: config.stage[key] for key in made},
        stride=config.prediction.stride,
        batch=config.prediction.batch,
    )


def scene_path(config: DictConfig) -> Path:
    """The scene that is to be mapped.

    Raises:
        UserError: It is not set, or not there.
    """
    if not config.stage.scene:
        raise UserError(
            "stage.predict.scene is not set: type stage.predict.scene=/path/to/scene.tif, or "
            "a folder of GeoTIFFs, a list of scenes (.txt), or a pattern"
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


class _Scenes(Mapping[str, DictConfig]):
    """The configuration of each scene of a list, made when it is asked for: a list may be long."""

    def __init__(self, config: DictConfig, scenes: Sequence[str]) -> None:
        self._config, self._scenes = config, scenes

    def __getitem__(self, scene: str) -> DictConfig:
        part = self._config.copy()
        part.stage.scene = scene
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(self._scenes)

    def __len__(self) -> int:
        return len(self._scenes)


def _scenes_of_list(config: DictConfig) -> _Scenes | None:
    """The configuration of each scene of a list, by its path."""
    scenes = listed_scenes(config.stage.scene or "")
    if scenes is None:
        return None
    _options(config).check()
    check_folders([Path(scene) for scene in scenes])
    return _Scenes(config, scenes)


def _sum_up(config: DictConfig, mapped: Mapping[str, Artefact], failed: Mapping[str, str]) -> None:
    """Leaves the table of all areas, and a list of the scenes that failed, which can be mapped in turn."""
    folder, name = stage_folder(config, STAGE.name), name_of_list(config.stage.scene)
    counts = {scene: artefact.manifest.counts for scene, artefact in mapped.items()}
    write_total_areas(folder / f"{name}_areas.csv", counts)
    failures = folder / f"{name}_failed.txt"
    failures.unlink(missing_ok=True)
    if failed:
        lines = [line for scene, reason in failed.items() for line in (f"# {reason}", scene)]
        write_text(failures, "\n".join(lines) + "\n")
        console.print(f"scenes that failed: {failures}", highlight=False)


def _sources(config: DictConfig) -> list[Any]:
    path = scene_path(config)
    return [str(path.resolve()), *map(identity, scene_files(path))]


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
    part=lambda config: map_name(scene_path(config)),
    parts=_scenes_of_list,
    conclude=_sum_up,
    subject=lambda used: used["sources"][0],
)
