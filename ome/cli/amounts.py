"""How much work a stage has: tiles, steps, and units of work that can be timed.

Importing this module does not load torch, so that commands without training start quickly.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from omegaconf import DictConfig

from ome.cli.remaining import files_missing, steps_left
from ome.cli.workload import Amounts, DataFacts, Unit
from ome.data.scene_index import SplitName, mapped_scenes
from ome.data.tiles import Length, Tile, automatic_epochs, automatic_steps
from ome.geo.flat import rows_in
from ome.geo.windows import window_side, window_starts, window_stride
from ome.pipeline.artifacts import as_list
from ome.pipeline.forecast import Forecast
from ome.pipeline.layout import cam_path, map_path, mask_path, round_folder
from ome.pipeline.marks import PartialResult

RANDOM: Final = "random"

NOTHING: Final = PartialResult(Path("/dev/null"))
"""The partial result of a stage that starts from scratch."""


def amounts(
    name: str, config: DictConfig, settings: DictConfig, forecast: Forecast, facts: DataFacts
) -> Amounts:
    """The remaining work of a stage.

    Args:
        name: Name of the stage.
        config: The composed configuration.
        settings: Settings of the stage, or of one of its parts.
        forecast: What will happen to it; a stage that resumes has less to do.
        facts: What is known about the data.
    """
    if name not in _AMOUNTS or forecast.state == "up to date":
        return Amounts()
    return _AMOUNTS[name](config, settings, facts, forecast.partial or NOTHING)


def _cam(config: DictConfig, settings: DictConfig, facts: DataFacts, done: PartialResult) -> Amounts:
    from ome.inference.classifier import members  # noqa: PLC0415 - loads torch, as the stage will

    kept, tagged = facts.tiles(kept=True), facts.tiles()
    names = list(facts.table.names if facts.table else config.dataset.classes or [])
    weights = settings.checkpoint or config.backbone.weights
    steps: int | None = 0
    validated: int | None = 0
    if settings.checkpoint is None:
        if kept is None or (config.classifier.one_vs_all and not names):
            steps = validated = None
        else:
            epochs = settings.epochs or automatic_epochs(len(kept), settings.batch)
            length = Length.of_epochs(epochs, len(kept), settings.batch)
            folders = [member.folder for member in members(config.classifier, Path(), names)]
            candidates = facts.table.validation().tiles if facts.table else ()
            validation = min(settings.validation_tiles, len(candidates))
            steps, validated = steps_left(length, done, folders, validation)
    units: dict[Unit, int | None] = {"classifier step": steps, "classifier validation tile": validated}
    if settings.export.write:
        units["CAM tile"] = files_missing(tagged, done, Path(), cam_path)
    return Amounts(None if tagged is None else len(tagged), steps, units, _name(weights))


def _pseudo(config: DictConfig, settings: DictConfig, facts: DataFacts, done: PartialResult) -> Amounts:
    tiles = facts.tiles()
    missing = files_missing(tiles, done, Path(), _pseudo_mask)
    units: dict[Unit, int | None] = {"CRF tile": missing}
    if settings.cams == "cam" and not config.stage.cam.export.write:
        units["CAM tile"] = missing
    return Amounts(None if tiles is None else len(tiles), 0, units)


def _seg(config: DictConfig, settings: DictConfig, facts: DataFacts, done: PartialResult) -> Amounts:
    targets = list(settings.targets)
    if not _has_masks(config, facts, "train"):
        targets = [target for target in targets if target != "full"]
    return _segmenters(config, facts, done, [Path(target) for target in targets])


def _refine(config: DictConfig, settings: DictConfig, facts: DataFacts, done: PartialResult) -> Amounts:
    tiles = facts.tiles()
    folders = [round_folder(Path(), number) for number in range(1, settings.rounds + 1)]
    segmenters = _segmenters(config, facts, done, folders)
    missing = [files_missing(tiles, done, folder, _pseudo_mask) or 0 for folder in folders]
    labelled = None if tiles is None else sum(missing)
    units: dict[Unit, int | None] = {"segmenter tile": labelled}
    if settings.confident is None:
        units["CRF tile"] = labelled
    return Amounts(segmenters.tiles, segmenters.steps, {**segmenters.units, **units}, segmenters.weights)


def _segmenters(
    config: DictConfig, facts: DataFacts, done: PartialResult, folders: Sequence[Path]
) -> Amounts:
    """The work of a training with the same recipe in each folder, and of its maps."""
    recipe, tiles = config.segmenter.recipe, facts.tiles()
    steps = validated = None
    if recipe.steps or tiles is not None:
        total = recipe.steps or automatic_steps(len(tiles or ()), recipe.batch)
        length = Length.of_steps(total, recipe.steps_per_epoch)
        validation = recipe.validation_tiles if _has_masks(config, facts, "val", "train") else 0
        steps, validated = steps_left(length, done, folders, validation)
    windows = None
    if facts.index is not None:
        scenes = mapped_scenes(facts.index)
        left = [scene for folder in folders for scene in scenes if not done.has(map_path(folder, scene))]
        size = window_side(config.dataset.tile.size, config.prediction.scales)
        windows = sum(_windows(scene.height, scene.width, size, config) for scene in left)
    units: dict[Unit, int | None] = {
        "segmenter step": steps,
        "segmenter validation tile": validated,
        "segmenter window": windows,
    }
    weights = _name(config.segmenter.weights)
    return Amounts(None if tiles is None else len(tiles), steps, units, weights)


def _has_masks(config: DictConfig, facts: DataFacts, *splits: SplitName) -> bool:
    """Whether a scene of the splits has a reference mask; before scenes exist, whether masks are set."""
    if facts.index is None:
        return bool(config.dataset.get("masks"))
    return any(scene.mask for split in splits for scene in facts.index.split(split))


def _affinity(config: DictConfig, settings: DictConfig, facts: DataFacts, done: PartialResult) -> Amounts:
    del config
    tiles = facts.tiles()
    if tiles is None:
        return Amounts(None, None, {}, "of the classifier")
    length = Length.of_epochs(settings.epochs, len(tiles), settings.batch)
    steps, _ = steps_left(length, done, [Path()], 0)
    return Amounts(len(tiles), steps, {}, "of the classifier")


def _predict(config: DictConfig, settings: DictConfig, facts: DataFacts, done: PartialResult) -> Amounts:
    """Windows of a scene, predicted by each of the networks that are averaged."""
    from ome.cli.tile_counts import map_sizes  # noqa: PLC0415 - loads readers of scenes, as the stage will
    from ome.inference.mapping import ROWS_FOLDER  # noqa: PLC0415

    tile = facts.card.tile if facts.card else config.dataset.tile.size
    size = window_side(tile, config.prediction.scales)
    sizes = map_sizes(settings)
    rows = sum(height for height, _ in sizes)
    left = max(0, rows - rows_in(done.folder / ROWS_FOLDER))
    windows = math.ceil(sum(_windows(*shape, size, config) for shape in sizes) * left / rows)
    units: dict[Unit, int | None] = {"segmenter window": windows * (1 + len(as_list(settings.others)))}
    if settings.crf:
        units["CRF tile"] = windows
    return Amounts(0, 0, units)


_AMOUNTS: Final[Mapping[str, Callable[[DictConfig, DictConfig, DataFacts, PartialResult], Amounts]]] = {
    "cam": _cam,
    "affinity": _affinity,
    "pseudo": _pseudo,
    "seg": _seg,
    "refine": _refine,
    "predict": _predict,
}


def _pseudo_mask(folder: Path, tile: Tile) -> Path:
    return mask_path(folder, "masks", tile)


def _windows(height: int, width: int, size: int, config: DictConfig) -> int:
    stride = window_stride(size, config.prediction.stride)
    return math.prod(len(window_starts(length, size, stride)) for length in (height, width))


def _name(weights: str | None) -> str:
    return Path(weights).name if weights else RANDOM
