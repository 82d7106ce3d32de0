"""Maps from Python: `stage=predict` without a configuration."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ome.config.calls import check_arguments, network_folders, path_of, segmenter_of, views_of
from ome.data.byte_image import ByteImage, open_scene
from ome.distributed.collectives import alone
from ome.errors import UserError
from ome.geo.grid import Grid
from ome.geo.reader import Raster
from ome.geo.scene_files import remote_state, scene_files
from ome.geo.stac import raster_of
from ome.geo.vsi import SceneAddress, VsiPath, scene_at
from ome.inference.array_scene import geotiff_of
from ome.inference.card import CARD, SegmenterCard
from ome.inference.map_files import endings_of, map_name, mark_map
from ome.inference.map_rows import PROBABILITY_ONE, MapOptions, predict_rows
from ome.inference.mapping import map_scene as write_maps
from ome.inference.mapping import say_differences
from ome.networks.views import Tta
from ome.pipeline.layout import NETWORK
from ome.pipeline.locks import locked
from ome.pipeline.manifest import identity

LOCK: Final = ".map.lock"
"""File in the folder of maps that one call locks: all maps in a folder share the folder of their rows."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The class map of a scene, in memory.

    Attributes:
        classes: (H, W) uint8 class indices, 255 for nodata.
        confidence: (H, W) float32 in [0, 1], the probability of that class; nan for nodata.
        names: Class names in order of index.
        colours: RGB of each class, 0..255.
        grid: Size and georeference of the map.
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    grid: Grid


def predict(
    scene: str | Path | NDArray[Any],
    run: str | Path | Sequence[str | Path],
    *,
    asset: str | None = None,
    network: str | None = None,
    scales: tuple[float, ...] | None = None,
    flip: bool | None = None,
    tta: Tta | None = None,
    stride: float | None = None,
    batch: int | None = None,
    device: str | None = None,
    precision: str = "auto",
) -> Prediction:
    """Predicts one scene in memory; `map_scene` writes files instead.

    Args:
        scene: A raster, a folder of GeoTIFFs on one grid, a URL, a STAC item, or an array (H, W, bands) uint8
            or uint16; in a numpy masked array, pixels with all bands masked are nodata.
        run: Folder of the run, e.g. `runs/potsdam_resnet50`; with several, their probabilities are averaged.
        asset: Asset of a STAC item; None for its only raster, or the only one with role `data` or `visual`.
        network: `weak`, `full`, `round_1`, ...; None for the last one that the run has trained.
        scales: Scale factors at which each window is predicted; None for the run's `prediction.scales`, and
            likewise for the next four arguments.
        flip: Also predict the mirror image of each window.
        tta: `d4` predicts all eight rotations and mirror images of each window, whatever `flip` says.
        stride: Pixels from one window to the next, as a fraction of a window's side.
        batch: Windows predicted together; by default what suits the device.
        device: A torch device; None for the GPU if there is one, else the CPU.
        precision: `auto` for bfloat16 where the device has instructions for it; `32-true` for float32.

    Raises:
        UserError: The run has no such segmenter, the scene cannot be read or has other bands, runs differ in
            classes, bands or scaling, or an argument is out of the range of the setting of the same name.
    """
    typed: dict[str, Any] = {"scales": scales, "flip": flip, "tta": tta, "precision": precision}
    typed |= {"stride": stride, "batch": batch}
    check_arguments(typed)
    networks = network_folders(run, network)
    views, stride, batch = views_of(networks[0], typed)
    card, predictor, windows = segmenter_of(networks, device, batch, views)
    options = MapOptions(stride=stride, batch=windows)
    with _opened(_address(scene) if isinstance(scene, str | Path) else scene, card, asset) as opened:
        say_differences(opened, card)
        blocks = list(predict_rows(opened, card, predictor, options, all_classes=False))
        confidence = np.concatenate([block.confidence for block in blocks])
        classes = np.concatenate([block.classes for block in blocks])
        scaled = np.where(
            confidence <= PROBABILITY_ONE, confidence / np.float32(PROBABILITY_ONE), np.float32(np.nan)
        )
        return Prediction(classes, scaled, card.names, card.colours, opened.grid)


def map_scene(
    scene: str | Path,
    run: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    asset: str | None = None,
    network: str | None = None,
    confidence: bool = False,
    probabilities: bool = False,
    polygons: bool = False,
    scales: tuple[float, ...] | None = None,
    flip: bool | None = None,
    tta: Tta | None = None,
    stride: float | None = None,
    batch: int | None = None,
    device: str | None = None,
    precision: str = "auto",
) -> dict[str, Any]:
    """Writes the map of a scene of any size, as `stage=predict` does; an interrupted call is resumed.

    Args:
        scene: A raster, a folder of GeoTIFFs on one grid, a URL, or a STAC item.
        run: See `predict`.
        folder: Output folder; use one for each scene and set of arguments.
        asset: See `predict`.
        network: See `predict`.
        confidence: Also write the probability of the class on the map.
        probabilities: Also write the probability of every class.
        polygons: Also write a GeoPackage; needs `ome[vector]`.
        scales: See `predict`.
        flip: See `predict`.
        tta: See `predict`.
        stride: See `predict`.
        batch: See `predict`.
        device: See `predict`.
        precision: See `predict`.

    Returns:
        Pixels and areas of each class, and megapixels per second.

    Raises:
        UserError: See `predict`; or the folder holds files of these names that are not a map of this scene.
    """
    if not isinstance(scene, str | Path):
        raise UserError(f"the scene is of the type {type(scene).__name__}: give a file; predict takes arrays")
    typed: dict[str, Any] = {"scales": scales, "flip": flip, "tta": tta, "precision": precision}
    typed |= {"stride": stride, "batch": batch}
    switches = {"confidence": confidence, "probabilities": probabilities, "polygons": polygons}
    check_arguments(typed, **switches)
    address, folder = _address(scene), path_of(folder, "folder")
    raster, name = raster_of(address, asset, allow_external=True), map_name(address)
    networks = network_folders(run, network)
    views, stride, batch = views_of(networks[0], typed)
    options = MapOptions(confidence, probabilities, polygons, stride=stride)
    options.check()
    segmenters = [one / file for one in networks for file in (NETWORK, CARD)]
    dependencies = [
        *map(identity, (*scene_files(raster), *segmenters)),
        *remote_state(raster),
        asdict(options),
        views,
    ]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give an existing or a new folder")
    remedy = "wait for it, or give this map another folder"
    # With several processes, each call maps its own scene.
    with alone(), locked(folder / LOCK, str(folder), wait=False, remedy=remedy):
        mark_map(folder, name, address, dependencies, endings_of(options))
        card, predictor, windows = segmenter_of(networks, device, batch, views)
        options = replace(options, batch=windows)
        with _opened(raster, card) as opened:
            return write_maps(opened, name, card, predictor, folder, options)


def _address(scene: str | Path) -> SceneAddress:
    path_of(scene, "scene")
    return scene_at(scene)


@contextmanager
def _opened(
    scene: SceneAddress | NDArray[Any], card: SegmenterCard, asset: str | None = None
) -> Iterator[ByteImage]:
    if not isinstance(scene, Path | VsiPath):
        array, channels = geotiff_of(scene, card.channels), card.channels
        with Raster(array, name="the array", channels=channels, nodata=card.nodata) as raster:
            yield ByteImage(raster, card.channels, card.limits)
    else:
        path = raster_of(scene, asset, allow_external=True)
        with open_scene(path, card.channels, card.limits, nodata=card.nodata, allow_external=True) as opened:
            yield opened
