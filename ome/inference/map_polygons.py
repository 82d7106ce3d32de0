"""Polygons of a class map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ome.data.byte_image import ByteImage
from ome.geo.areas import PixelAreas
from ome.geo.flat import FlatRasters
from ome.inference.card import SegmenterCard
from ome.inference.map_rows import PROBABILITY_ONE, MapOptions
from ome.progress import meter


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
        path: The GeoPackage to write.
        flat: The rows of the map and of its confidence.
        card: The card of the segmenter.
        areas: Measures the pixels.
        scene: The mapped scene.
        options: Has the distance by which outlines may move.

    Returns:
        Number of regions.
    """
    from ome.geo.polygons import STRIP, class_regions  # noqa: PLC0415 - part of an extra
    from ome.geo.vectors import write_regions  # noqa: PLC0415

    batches = class_regions(
        lambda row, height: flat.read("classes", row, height)[0],
        lambda row, height: flat.read("confidence", row, height)[0] / PROBABILITY_ONE,
        areas.rows,
        flat.height,
        len(card.classes),
    )
    grid = scene.grid
    with meter("polygons: rows", flat.height) as progress:

        def counted() -> Iterator[Any]:
            for batch in batches:
                yield batch
                progress.advance(min(STRIP, flat.height))

        return write_regions(
            path, counted(), card.names, card.colours, grid.crs, grid.transform, options.simplify, areas.unit
        )
