"""Files beside a class map: the table of areas, and polygons."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ome.data.byte_image import ByteImage
from ome.files import write_csv
from ome.geo.areas import PixelAreas
from ome.geo.flat import FlatRasters
from ome.ignore import IGNORE
from ome.inference.card import SegmenterCard
from ome.inference.map_rows import SURE, MapOptions
from ome.progress import console, meter


def write_areas(path: Path, flat: FlatRasters, names: Sequence[str], areas: PixelAreas) -> dict[str, Any]:
    """Writes and prints what each class covers.

    Args:
        path: The CSV file.
        flat: The rows of the map.
        names: Class names in order of index.
        areas: Measures the pixels.

    Returns:
        Pixels of each class and without one, and square metres of each where they are known.
    """
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


def write_polygons(
    path: Path,
    flat: FlatRasters,
    card: SegmenterCard,
    areas: PixelAreas,
    scene: ByteImage,
    options: MapOptions,
) -> int:
    """Writes the regions of one class each, with their confidence and area.

    Args:
        path: The GeoPackage.
        flat: The rows of the map and of its confidence.
        card: Of the segmenter.
        areas: Measures the pixels.
        scene: What was mapped.
        options: How far outlines may move.

    Returns:
        Number of regions.
    """
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
