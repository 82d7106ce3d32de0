"""Writes the class map of a scene of any size, with areas and polygons."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from ome.data.byte_image import ByteImage
from ome.distributed.collectives import barrier, is_rank_zero, rank, world_size
from ome.geo.areas import MAX_PIXEL_RATIO, PixelAreas
from ome.geo.cog import write_class_cog, write_probability_cog
from ome.geo.flat import FlatRasters
from ome.geo.image_source import differences
from ome.geo.sliding import PredictBatch
from ome.geo.windows import rows_of_part, window_stride
from ome.inference.area_tables import write_areas
from ome.inference.card import SegmenterCard
from ome.inference.map_polygons import write_polygons
from ome.inference.map_rows import MapOptions, PredictedRows, predict_rows
from ome.pipeline.layout import AREAS, CONFIDENCE, PROBABILITIES
from ome.progress import Meter, console, meter

ROWS_FOLDER: Final = "rows"
"""Folder beside the map with the rows that have been predicted so far."""


def map_scene(
    scene: ByteImage,
    name: str,
    card: SegmenterCard,
    predict: PredictBatch,
    folder: Path,
    options: MapOptions,
) -> dict[str, Any]:
    """Writes `<name>.tif`, `<name>_areas.csv` and the optional outputs.

    A collective call: each process predicts a part of the rows, and all must see the same folder. An
    interrupted run resumes after the last rows that were written, with the same result.

    Args:
        scene: The scene.
        name: Beginning of the file names.
        card: The card of the segmenter.
        predict: The segmenter.
        folder: Folder of the files; it may have those of an interrupted run.
        options: Optional outputs, and the layout of the windows.

    Returns:
        Size in pixels, pixels and areas of each class, and megapixels per second; empty except on rank 0.

    Raises:
        UserError: The scene is damaged, or an option is wrong.
    """
    options.check()
    say_differences(scene, card)
    grid = scene.grid
    bands = {"classes": 1}
    if options.confidence or options.polygons:
        bands["confidence"] = 1
    if options.probabilities:
        bands["probabilities"] = len(card.classes)
    stride = window_stride(card.tile, options.stride)
    with _shared_rasters(folder / ROWS_FOLDER, bands, scene, stride, card.tile) as flat:
        rows, done = flat.rows, flat.rows_done
        if done > rows.start:
            console.print(f"{name}: resuming at row {done} of {rows.stop}")
        with meter(f"map {name}: rows", len(rows), done - rows.start) as progress:
            speed = _predict_missing(flat, scene, card, predict, options, progress)
        barrier()
        if not is_rank_zero():
            return {}
        console.print(f"{name}: writing the map and its overviews")
        write_class_cog(folder / f"{name}.tif", flat.paths["classes"], grid, card.names, card.colours)
        if options.confidence:
            path = folder / f"{name}{CONFIDENCE}"
            write_probability_cog(path, flat.paths["confidence"], grid, [f"confidence, {card.calibration}"])
        if options.probabilities:
            path = folder / f"{name}{PROBABILITIES}"
            write_probability_cog(path, flat.paths["probabilities"], grid, card.names)
        areas = PixelAreas(grid, scene.name)
        counts = write_areas(folder / f"{name}{AREAS}", flat, card.names, areas)
        if options.polygons:
            counts["polygons"] = write_polygons(folder / f"{name}.gpkg", flat, card, areas, scene, options)
        flat.discard()
    return {"width": grid.width, "height": grid.height, **counts, "megapixels_per_second": speed}


def _shared_rasters(
    folder: Path, bands: Mapping[str, int], scene: ByteImage, stride: int, size: int
) -> FlatRasters:
    """The rasters of a map, to which each process writes its part of the rows; rank 0 creates the files."""
    height, width = scene.grid.height, scene.grid.width
    rows = rows_of_part(height, size, stride, rank(), world_size())
    if not is_rank_zero():
        barrier()
    flat = FlatRasters(folder, bands, height, width, rows)
    if is_rank_zero():
        barrier()
    return flat


def write_class_map(
    path: Path,
    scene: ByteImage,
    card: SegmenterCard,
    predict: PredictBatch,
    options: MapOptions,
    progress: Meter,
) -> None:
    """Writes only the class map of a scene, in one process; resumes an interrupted map with the same result.

    Args:
        path: The GeoTIFF to write; see `write_class_cog`.
        scene: The scene.
        card: The card of the segmenter.
        predict: The segmenter.
        options: Stride and batch of the windows.
        progress: Counts the rows.
    """
    grid = scene.grid
    with FlatRasters(path.with_suffix(".rows"), {"classes": 1}, grid.height, grid.width) as flat:
        progress.advance(flat.rows_done)
        _predict_missing(flat, scene, card, predict, options, progress)
        write_class_cog(path, flat.paths["classes"], grid, card.names, card.colours)
        flat.discard()


def _predict_missing(
    flat: FlatRasters,
    scene: ByteImage,
    card: SegmenterCard,
    predict: PredictBatch,
    options: MapOptions,
    progress: Meter,
) -> float | None:
    """Predicts and writes the missing rows; returns megapixels per second, or None if no row was missing."""
    done, stop, speed = flat.rows_done, flat.rows.stop, None
    rows = predict_rows(scene, card, predict, options, done, stop, all_classes=options.probabilities)

    def write(block: PredictedRows) -> None:
        parts = {"classes": block.classes[None], "confidence": block.confidence[None]}
        parts["probabilities"] = block.probabilities
        flat.write(block.row, {name: parts[name] for name in flat.paths})

    # A thread writes to disk while the next rows are predicted.
    with closing(rows), ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for block in rows if done < stop else ():
            if written is not None:
                written.result()
            written = writer.submit(write, block)
            height = len(block.classes)
            speed = round(progress.rate(height) * flat.width * world_size() / 1e6, 3)
            progress.advance(height, f"{speed:.2f} Mpx/s")
        if written is not None:
            written.result()
    return speed


def say_differences(scene: ByteImage, card: SegmenterCard) -> None:
    """Warns if a scene differs from the training images in its pixel size, bands or depth.

    Args:
        scene: The scene.
        card: The card of the segmenter.
    """
    name, size = Path(scene.name).name, PixelAreas(scene.grid, scene.name).pixel_size()
    ratio = 1.0 if size is None or card.pixel_size is None else size / card.pixel_size
    if max(ratio, 1 / ratio) > MAX_PIXEL_RATIO:
        console.print(
            f"[yellow]a pixel of {escape(name)} is {size:.3g} m wide, of the training scenes "
            f"{card.pixel_size:.3g} m[/]: prediction.scales={[round(ratio, 2)]} predicts at their size",
        )
    if card.source is not None:
        for line in differences(scene.source, scene.channels, card.source, card.channels):
            console.print(f"[yellow]{escape(name)} {escape(line)}[/]")
