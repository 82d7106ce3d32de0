"""A scene of any size -> its class map and what belongs to it, in plain arguments."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from ome.data.byte_image import ByteImage
from ome.errors import UserError
from ome.extras import require
from ome.files import write_csv
from ome.geo.areas import PixelAreas
from ome.geo.cog import write_class_cog, write_share_cog
from ome.geo.flat import FlatRasters
from ome.geo.sliding import PredictBatch, predict_windows
from ome.ignore import IGNORE
from ome.inference.card import SegmenterCard
from ome.progress import Meter, console, meter

SURE: Final = 254
"""The byte of a probability of 1; 255 is nodata."""

ROWS: Final = "rows"
"""The folder of the rows that are predicted so far, beside the map."""

ENDINGS: Final = (
    *(".tif", ".tif.aux.xml", ".qml", ".gpkg", "_areas.csv"),
    *("_confidence.tif", "_probabilities.tif"),
)
"""What the names of a map's files end with, after the name of the map."""

DIFFERENT_PIXELS: Final = 1.5
"""Ratio of pixel sizes from which on objects look unlike those of the training scenes."""


@dataclass(frozen=True)
class MapOptions:
    """What is made of a scene beside its class map, and how its windows lie.

    Attributes:
        confidence: The probability of the class on the map.
        probabilities: The probability of every class.
        polygons: A GeoPackage of the map's regions.
        simplify: Pixels by which outlines may move to become simpler.
        stride: Pixels from one window to the next, as a part of a window's side.
        batch: Windows predicted together.
    """

    confidence: bool = False
    probabilities: bool = False
    polygons: bool = False
    simplify: float = 1.0
    stride: float = 0.5
    batch: int = 8

    def check(self) -> None:
        """Refuses what cannot work before long work begins.

        Raises:
            UserError: A value is out of its range, or what polygons need is not installed.
        """
        if not 0 < self.stride <= 1:
            raise UserError(f"prediction.stride={self.stride}: give a part of a tile's side, such as 0.5")
        if self.simplify < 0:
            raise UserError(
                f"stage.predict.simplify={self.simplify}: give pixels, such as 1.0; 0 keeps every corner"
            )
        if self.polygons:
            require("vector", "stage.predict.polygons=true")


class PredictedRows(NamedTuple):
    """Rows of a map.

    Attributes:
        row: The first.
        classes: (h, W) uint8 class indices, 255 where nothing was measured.
        confidence: (h, W) uint8, 0..254 for 0 to 1, 255 likewise.
        probabilities: (C, h, W) uint8, likewise.
    """

    row: int
    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    probabilities: NDArray[np.uint8]


def predict_rows(
    scene: ByteImage,
    card: SegmenterCard,
    predict: PredictBatch,
    options: MapOptions,
    first_row: int = 0,
    *,
    all_classes: bool = True,
) -> Iterator[PredictedRows]:
    """Predicts a scene from top to bottom.

    Args:
        scene: The scene.
        card: Of the segmenter.
        predict: The segmenter.
        options: How windows lie.
        first_row: Where an earlier call stopped.
        all_classes: Also give the probabilities of all classes; without, they have no row.

    Yields:
        Blocks of rows, in order.
    """
    height, width = scene.grid.height, scene.grid.width
    blocks = predict_windows(
        scene.read,
        height,
        width,
        predict,
        len(card.classes),
        size=card.tile,
        stride=max(1, int(card.tile * options.stride)),
        batch=options.batch,
        first_row=first_row,
        is_empty=scene.is_empty,
    )
    for block in blocks:
        values = torch.from_numpy(block.probabilities)
        best, index = values.max(dim=0)
        empty = ~scene.valid(block.row, 0, values.shape[1], width)
        classes = index.to(torch.uint8).numpy()
        parts = [classes, _bytes(best), _bytes(values if all_classes else values[:0])]
        for part in parts:
            part[..., empty] = IGNORE
        yield PredictedRows(block.row, *parts)


def map_name(scene: Path) -> str:
    """What the files of a scene's map are called, and their folder.

    Raises:
        UserError: The scene is the root of the disk.
    """
    name = (scene.resolve() if scene.name in {"", ".."} else scene).stem
    if not name:
        raise UserError(f"{scene} has no name to call its map by: give a scene, or a folder of scenes")
    # The engine's own names begin with a dot, or end like this.
    return f"_{name}_" if name.startswith(".") or name.lower().endswith(".partial") else name


def map_scene(
    scene: ByteImage,
    name: str,
    card: SegmenterCard,
    predict: PredictBatch,
    folder: Path,
    options: MapOptions,
) -> dict[str, Any]:
    """Writes `<name>.tif`, `<name>_areas.csv` and what else is asked for.

    A run that was interrupted resumes after the last rows that reached the disk, with the same result.

    Args:
        scene: The scene.
        name: What the files are called.
        card: Of the segmenter.
        predict: The segmenter.
        folder: Where the files go; it may hold the remains of an interrupted run.
        options: What is made, and how.

    Returns:
        Pixels and areas of each class, and megapixels a second.

    Raises:
        UserError: The scene is damaged, or an option cannot be had.
    """
    options.check()
    _compare_pixels(scene, card)
    grid = scene.grid
    bands = {"classes": 1}
    if options.confidence or options.polygons:
        bands["confidence"] = 1
    if options.probabilities:
        bands["probabilities"] = len(card.classes)
    with FlatRasters(folder / ROWS, bands, grid.height, grid.width) as flat:
        if flat.rows_done:
            console.print(f"{name}: resuming at row {flat.rows_done} of {flat.height}", highlight=False)
        with meter(f"map {name}: rows", flat.height, flat.rows_done) as shown:
            speed = _fill(flat, scene, card, predict, options, shown)
        console.print(f"{name}: writing the map and its overviews", highlight=False)
        write_class_cog(folder / f"{name}.tif", flat.paths["classes"], grid, card.names, card.colours)
        if options.confidence:
            write_share_cog(folder / f"{name}_confidence.tif", flat.paths["confidence"], grid, ["confidence"])
        if options.probabilities:
            path = folder / f"{name}_probabilities.tif"
            write_share_cog(path, flat.paths["probabilities"], grid, card.names)
        areas = PixelAreas(grid)
        counts = _write_areas(folder / f"{name}_areas.csv", flat, card.names, areas)
        if options.polygons:
            counts["polygons"] = _write_polygons(folder / f"{name}.gpkg", flat, card, areas, scene, options)
        flat.discard()
    return {"width": grid.width, "height": grid.height, **counts, "megapixels_per_second": speed}


def write_class_map(
    path: Path,
    scene: ByteImage,
    card: SegmenterCard,
    predict: PredictBatch,
    options: MapOptions,
    shown: Meter,
) -> None:
    """Writes the class map of a scene alone; one that was interrupted is resumed, with the same result.

    Args:
        path: The GeoTIFF to write; see `write_class_cog`.
        scene: The scene.
        card: Of the segmenter.
        predict: The segmenter.
        options: How windows lie.
        shown: Counts the rows.
    """
    grid = scene.grid
    with FlatRasters(path.with_suffix(".rows"), {"classes": 1}, grid.height, grid.width) as flat:
        shown.advance(flat.rows_done)
        _fill(flat, scene, card, predict, options, shown)
        write_class_cog(path, flat.paths["classes"], grid, card.names, card.colours)
        flat.discard()


def _fill(
    flat: FlatRasters,
    scene: ByteImage,
    card: SegmenterCard,
    predict: PredictBatch,
    options: MapOptions,
    shown: Meter,
) -> float | None:
    """Predicts the rows that are missing; gives the megapixels a second, None where there were none."""
    done, speed = flat.rows_done, None
    rows = predict_rows(scene, card, predict, options, done, all_classes=options.probabilities)
    for block in rows if done < flat.height else ():
        parts = {"classes": block.classes[None], "confidence": block.confidence[None]}
        parts["probabilities"] = block.probabilities
        flat.write(block.row, {name: parts[name] for name in flat.paths})
        height = len(block.classes)
        speed = round(shown.rate(height) * flat.width / 1e6, 3)
        shown.advance(height, f"{speed:.2f} Mpx/s")
    return speed


def _write_areas(path: Path, flat: FlatRasters, names: Sequence[str], areas: PixelAreas) -> dict[str, Any]:
    """Writes and prints what each class covers."""
    pixels, covered = areas.by_class(lambda row, height: flat.read("classes", row, height)[0])
    total = max(int(pixels[: len(names)].sum()), 1)
    measured = areas.unit == "m2"
    header = ["class", "pixels", "percent", *(["area_m2"] if measured else [])]
    shown = Table(
        title="the map" if measured else "the map (no coordinate reference system: areas in pixels)"
    )
    for title in header:
        shown.add_column(title, justify="left" if title == "class" else "right")
    rows = []
    for index, name in enumerate(names):
        cells = [name, str(pixels[index]), f"{100 * pixels[index] / total:.2f}"]
        rows.append([*cells, *([f"{covered[index]:.2f}"] if measured else [])])
        shown.add_row(*rows[-1])
    write_csv(path, header, rows)
    console.print(shown)
    empty = int(pixels[IGNORE])
    if empty:
        console.print(f"{empty} pixels without data stay without a class", highlight=False)
    per_class = {name: int(pixels[index]) for index, name in enumerate(names)}
    return {"pixels": per_class, "empty_pixels": empty} | (
        {"area_m2": {name: round(float(covered[index]), 2) for index, name in enumerate(names)}}
        if measured
        else {}
    )


def _write_polygons(
    path: Path,
    flat: FlatRasters,
    card: SegmenterCard,
    areas: PixelAreas,
    scene: ByteImage,
    options: MapOptions,
) -> int:
    from ome.geo.polygons import STRIP as ROWS  # noqa: PLC0415 - part of an extra
    from ome.geo.polygons import class_regions  # noqa: PLC0415
    from ome.geo.vectors import write_regions  # noqa: PLC0415

    batches = class_regions(
        lambda row, height: flat.read("classes", row, height)[0],
        lambda row, height: flat.read("confidence", row, height)[0] / SURE,
        areas.rows,
        flat.height,
        len(card.classes),
    )
    grid = scene.grid
    with meter("polygons: rows", flat.height) as shown:

        def counted() -> Iterator[Any]:
            for batch in batches:
                yield batch
                shown.advance(min(ROWS, flat.height))

        return write_regions(
            path, counted(), card.names, card.colours, grid.crs, grid.transform, options.simplify, areas.unit
        )


def _compare_pixels(scene: ByteImage, card: SegmenterCard) -> None:
    """Warns of objects that look larger or smaller than those the segmenter was trained on."""
    grid = scene.grid
    size = PixelAreas(grid).pixel_size()
    if size is None or card.pixel_size is None:
        return
    ratio = size / card.pixel_size
    if max(ratio, 1 / ratio) > DIFFERENT_PIXELS:
        console.print(
            f"[yellow]a pixel of {Path(scene.name).name} is {size:.3g} m wide, of the training scenes "
            f"{card.pixel_size:.3g} m[/]: prediction.scales={[round(ratio, 2)]} predicts at their size",
            highlight=False,
        )


def _bytes(probabilities: torch.Tensor) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] = (probabilities * SURE).round_().to(torch.uint8).numpy()
    return result
