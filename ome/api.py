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
from rasterio.io import MemoryFile

from ome.data.byte_image import ByteImage, open_scene
from ome.errors import UserError
from ome.files import read_json, write_json
from ome.geo.flat import RECORD
from ome.geo.gdal import plain_pixels
from ome.geo.grid import Grid
from ome.geo.reader import IMAGE_DEPTHS, Raster
from ome.geo.scene_files import scene_files
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
    stride: float = 0.5,
    batch: int = 8,
    device: str | None = None,
    precision: str = "auto",
) -> Prediction:
    """Predicts one scene in memory; `map_scene` writes files instead.

    Args:
        scene: A raster, a folder of GeoTIFFs on one grid, or an array (H, W, bands) uint8 or uint16.
        run: Folder of the run, e.g. `runs/potsdam_resnet50`.
        network: `weak`, `full`, `round_1`, ...; None for the last that the run has trained.
        scales: Factors at which each window is predicted.
        flip: Also predict the mirror image of each window.
        stride: Pixels from one window to the next, as a part of a window's side.
        batch: Windows predicted together.
        device: As torch names it; None for the GPU where there is one.
        precision: `auto` for bfloat16 where the device has instructions for it; `32-true` for float32.

    Raises:
        UserError: The run has no such segmenter, or the scene cannot be read or has other bands.
    """
    card, predictor = _segmenter(_trained(run, network), scales, device, precision, flip=flip)
    options = MapOptions(stride=stride, batch=batch)
    options.check()
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
    stride: float = 0.5,
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
    options.check()
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
    with _opened(path, card) as opened:
        return write_maps(opened, map_name(path), card, predictor, folder, options)


def _claim(folder: Path, name: str, scene: Path, made_of: list[Any]) -> None:
    """Marks what a map is made of; what is there without the mark of that scene is somebody else's."""
    mark, rows = folder / f".{name}.json", folder / ROWS
    before = read_json(mark) if mark.is_file() else None
    there = [path for path in (rows, *(folder / f"{name}{end}" for end in ENDINGS)) if path.exists()]
    if there and (before is None or before["scene"] != str(scene.resolve())):
        raise UserError(
            f"{there[0]} exists and is not a map of {scene}: choose another folder, or move it away"
        )
    if before is not None and before["made_of"] != made_of and rows.exists():
        (rows / RECORD).unlink(missing_ok=True)  # rows of an interrupted call with other arguments
    write_json(mark, {"scene": str(scene.resolve()), "made_of": made_of})


def _trained(run: str | Path, network: str | None) -> Path:
    if not Path(run).is_dir():
        raise UserError(f"{run} does not exist: give the folder of a run, e.g. runs/potsdam_resnet50")
    return network_folder(Path(run) / stage_of_network(network, [Path(run)]), network)


def _segmenter(
    folder: Path, scales: tuple[float, ...], device: str | None, precision: str, *, flip: bool
) -> tuple[SegmenterCard, Predictor]:
    card = SegmenterCard.read(folder)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return card, Predictor(card.load(folder), chosen, scales, flip=flip, precision=precision)


@contextmanager
def _opened(scene: str | Path | NDArray[Any], card: SegmenterCard) -> Iterator[ByteImage]:
    if not isinstance(scene, str | Path):
        with Raster(
            _geotiff(np.asarray(scene), max(card.channels)), name="the array", channels=card.channels
        ) as raster:
            yield ByteImage(raster, card.channels, card.limits)
    else:
        with open_scene(Path(scene), card.channels, card.limits, allow_external=True) as opened:
            yield opened


def _geotiff(array: NDArray[Any], bands: int) -> bytes:
    """An array (height, width, bands) as a file in memory, checked for what is commonly confused."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise UserError(f"the array has the shape {array.shape}: give (height, width, bands)")
    if bands <= array.shape[0] < min(array.shape[1:]) and array.shape[0] < 32:
        raise UserError(
            f"the array has the shape {array.shape}, and bands come last: give array.transpose(1, 2, 0)"
        )
    if array.dtype.name not in IMAGE_DEPTHS:
        raise UserError(
            f"the array holds {array.dtype} values: give uint8 or uint16, such as "
            "(array * 255).astype('uint8') where they are from 0 to 1"
        )
    height, width, count = array.shape
    size = {"height": height, "width": width, "count": count, "dtype": array.dtype.name}
    with plain_pixels(), MemoryFile() as memory:
        with memory.open(driver="GTiff", photometric="MINISBLACK", **size) as written:
            written.write(array.transpose(2, 0, 1))
        return bytes(memory.getbuffer())
