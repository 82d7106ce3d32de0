"""Maps from Python: what `stage=predict` does, without a configuration."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ome.config.schema import general
from ome.config.schema.hints import expected, fits, hints_of
from ome.data.byte_image import ByteImage, open_scene
from ome.distributed.collectives import alone
from ome.errors import UserError
from ome.files import read_json, write_json
from ome.geo.flat import RECORD
from ome.geo.grid import Grid
from ome.geo.reader import Raster
from ome.geo.scene_files import scene_files
from ome.inference.array_scene import geotiff_of
from ome.inference.card import SegmenterCard, network_folder, stage_of_network
from ome.inference.map_rows import SURE, MapOptions, predict_rows
from ome.inference.mapping import ENDINGS, ROWS, map_name
from ome.inference.mapping import map_scene as write_maps
from ome.inference.predictor import Predictor
from ome.pipeline.manifest import identity
from ome.training.checkpoints import NETWORK


@dataclass(frozen=True, eq=False)
class Prediction:
    """The class map of a scene, in memory.

    Attributes:
        classes: (H, W) uint8 class indices, 255 where nothing was measured.
        confidence: (H, W) float32 in [0, 1], the probability of that class; nan where nothing was measured.
        names: Class names in order of index.
        colours: RGB of each class, 0..255.
        grid: Size and place of the map.
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    grid: Grid


def predict(
    scene: str | Path | NDArray[Any],
    run: str | Path,
    *,
    network: str | None = None,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = True,
    stride: float = 0.625,
    batch: int = 8,
    device: str | None = None,
    precision: str = "auto",
) -> Prediction:
    """Predicts one scene in memory; `map_scene` writes files instead.

    Args:
        scene: A raster, a folder of GeoTIFFs on one grid, or an array (H, W, bands) uint8 or uint16;
            where a numpy masked array masks all bands, nothing was measured.
        run: Folder of the run, e.g. `runs/potsdam_resnet50`.
        network: `weak`, `full`, `round_1`, ...; None for the last that the run has trained.
        scales: Factors at which each window is predicted.
        flip: Also predict the mirror image of each window.
        stride: Pixels from one window to the next, as a part of a window's side.
        batch: Windows predicted together.
        device: As torch names it; None for the GPU where there is one.
        precision: `auto` for bfloat16 where the device has instructions for it; `32-true` for float32.

    Raises:
        UserError: The run has no such segmenter, the scene cannot be read or has other bands, or an argument
            is out of the limits that the setting of its name has.
    """
    options = _checked(MapOptions(stride=stride, batch=batch), scales, precision, flip=flip)
    card, predictor = _segmenter(_trained(run, network), scales, device, precision, flip=flip)
    with _opened(scene, card) as opened:
        blocks = list(predict_rows(opened, card, predictor, options, all_classes=False))
        confidence = np.concatenate([block.confidence for block in blocks])
        classes = np.concatenate([block.classes for block in blocks])
        shares = np.where(confidence <= SURE, confidence / np.float32(SURE), np.float32(np.nan))
        return Prediction(classes, shares, card.names, card.colours, opened.grid)


def map_scene(
    scene: str | Path,
    run: str | Path,
    folder: str | Path,
    *,
    network: str | None = None,
    confidence: bool = False,
    probabilities: bool = False,
    polygons: bool = False,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = True,
    stride: float = 0.625,
    batch: int = 8,
    device: str | None = None,
    precision: str = "auto",
) -> dict[str, Any]:
    """Writes the map of a scene of any size, as `stage=predict` does; an interrupted call is resumed.

    Args:
        scene: A raster, or a folder of GeoTIFFs on one grid.
        run: Folder of the run.
        folder: Where the files go; one folder for each scene and set of arguments.
        network: See `predict`.
        confidence: Also write the probability of the class on the map.
        probabilities: Also write the probability of every class.
        polygons: Also write a GeoPackage; needs `ome[vector]`.
        scales: See `predict`.
        flip: See `predict`.
        stride: See `predict`.
        batch: See `predict`.
        device: See `predict`.
        precision: See `predict`.

    Returns:
        Pixels and areas of each class, and megapixels a second.

    Raises:
        UserError: See `predict`; or the folder holds files of these names that are no map of this scene.
    """
    path, folder = Path(scene), Path(folder)
    options = MapOptions(confidence, probabilities, polygons, stride=stride, batch=batch)
    _checked(options, scales, precision, flip=flip)
    trained = _trained(run, network)
    made_of = [
        *map(identity, (*scene_files(path), trained / NETWORK)),
        asdict(options),
        scales,
        flip,
        precision,
    ]
    _claim(folder, map_name(path), path, json.loads(json.dumps(made_of)))
    card, predictor = _segmenter(trained, scales, device, precision, flip=flip)
    with alone(), _opened(path, card) as opened:  # whoever calls this in several processes shares by scenes
        return write_maps(opened, map_name(path), card, predictor, folder, options)


def _claim(folder: Path, name: str, scene: Path, made_of: list[Any]) -> None:
    """Marks what a map is made of; what is there without the mark of that scene is not replaced."""
    mark, rows = folder / f".{name}.json", folder / ROWS
    before = _mark_of_a_map(mark)
    files = (*([] if before else [mark]), rows, *(folder / f"{name}{end}" for end in ENDINGS))
    there = [path for path in files if path.exists()]
    # A scene called NAME_confidence has its map where NAME has its confidence.
    others = [path for path in there if path.stem != name and _mark_of_a_map(folder / f".{path.stem}.json")]
    if there and (before is None or before["scene"] != str(scene.resolve())):
        others = others or there
    if others:
        raise UserError(
            f"{others[0]} exists and is not a map of {scene}: choose another folder, or move it away"
        )
    if before is not None and before["made_of"] != made_of and rows.exists():
        (rows / RECORD).unlink(missing_ok=True)  # rows of an interrupted call with other arguments
    write_json(mark, {"scene": str(scene.resolve()), "made_of": made_of})


def _mark_of_a_map(path: Path) -> dict[str, Any] | None:
    """What `_claim` wrote there; None where nothing is, or a file that somebody else wrote."""
    try:
        mark = read_json(path)
    except (OSError, ValueError):
        return None
    return mark if isinstance(mark, dict) and mark.keys() >= {"scene", "made_of"} else None


def _checked(options: MapOptions, scales: tuple[float, ...], precision: str, *, flip: bool) -> MapOptions:
    """Holds arguments to the limits of the settings of the same names."""
    hints = hints_of(general.Prediction) | {"precision": hints_of(general.Trainer)["precision"]}
    given = {
        "scales": [*map(_plain, scales)] if isinstance(scales, tuple) else _plain(scales),
        "precision": precision,
        "flip": flip,
        "stride": _plain(options.stride),
        "batch": _plain(options.batch),
    }
    for name, value in given.items():
        if not fits(value, hints[name]):
            raise UserError(f"{name}={value}: expected {expected(hints[name])}")
    options.check()
    return options


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever was given
    """Numbers of numpy as those of Python."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _trained(run: str | Path, network: str | None) -> Path:
    if not Path(run).is_dir():
        raise UserError(f"{run} does not exist: give the folder of a run, e.g. runs/potsdam_resnet50")
    return network_folder(Path(run) / stage_of_network(network, [Path(run)]), network)


def _segmenter(
    folder: Path, scales: tuple[float, ...], device: str | None, precision: str, *, flip: bool
) -> tuple[SegmenterCard, Predictor]:
    card = SegmenterCard.read(folder)
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.zeros(1, device=name)
        probe.cpu()  # which a device without memory, `meta`, cannot
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        line = str(error).partition("\n")[0]
        raise UserError(
            f"device={name} cannot be used ({line}): give cpu or cuda, or leave it out"
        ) from error
    return card, Predictor(card.load(folder), probe.device, scales, flip=flip, precision=precision)


@contextmanager
def _opened(scene: str | Path | NDArray[Any], card: SegmenterCard) -> Iterator[ByteImage]:
    if not isinstance(scene, str | Path):
        with Raster(geotiff_of(scene, card.channels), name="the array", channels=card.channels) as raster:
            yield ByteImage(raster, card.channels, card.limits)
    else:
        with open_scene(Path(scene), card.channels, card.limits, allow_external=True) as opened:
            yield opened
