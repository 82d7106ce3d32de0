"""Polygons of a class map of any size, computed strip by strip and joined across strips."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import Affine
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from shapely import Geometry

STRIP: Final = 512
"""Rows that are polygonized at a time."""

ReadRows = Callable[[int, int], NDArray[Any]]
"""`read(row, height)` -> (height, W)."""


@dataclass
class Region:
    """A connected component (4-connectivity) of pixels of one class.

    Attributes:
        class_index: Index of the class.
        pixels: Number of pixels.
        area: Sum of the pixels' areas.
        confidence: Sum of the pixels' confidences.
        parts: Polygons found so far, in pixels from the raster's upper left corner.
    """

    class_index: int
    pixels: int = 0
    area: float = 0.0
    confidence: float = 0.0
    parts: list["Geometry"] = field(default_factory=list)

    def add(self, other: "Region") -> None:
        """Merges another region into this one."""
        self.pixels += other.pixels
        self.area += other.area
        self.confidence += other.confidence
        self.parts += other.parts

    def outline(self, transform: Affine, tolerance: float) -> "Geometry":
        """Its polygon, with holes, in world coordinates.

        Args:
            transform: Pixel to world coordinates.
            tolerance: Tolerance of the simplification (Douglas and Peucker) in pixels; 0 removes only points
                on straight lines.
        """
        import shapely  # noqa: PLC0415 - part of an extra

        whole = self.parts[0] if len(self.parts) == 1 else shapely.union_all(self.parts)
        simple = shapely.simplify(whole, tolerance, preserve_topology=True)
        to = np.array([[transform.a, transform.b], [transform.d, transform.e]])
        shift = np.array([transform.c, transform.f])
        return shapely.transform(simple, lambda points: points @ to.T + shift)


def class_regions(
    classes: ReadRows,
    confidence: ReadRows,
    areas: ReadRows,
    height: int,
    num_classes: int,
    strip: int = STRIP,
) -> Iterator[list[Region]]:
    """Finds the regions of a class map from top to bottom.

    Memory holds the polygons of one strip, and all parts of the regions that reach its lower edge: only a
    region that extends over the whole map is ever in memory as a whole.

    Args:
        classes: Reads uint8 class indices, or 255.
        confidence: Reads the confidence of each pixel, any unit.
        areas: Reads the area of each pixel.
        height: Rows of the map.
        num_classes: C.
        strip: Rows processed at a time; the regions do not depend on it.

    Yields:
        The regions that end in each strip.
    """
    open_regions: list[Region] = []
    edge: NDArray[np.int64] | None = None
    for row in range(0, height, strip):
        rows = min(strip, height - row)
        labels, regions = _strip_regions(classes(row, rows), num_classes, row)
        _measure(regions, labels, confidence(row, rows), areas(row, rows))
        groups = _joined(open_regions, regions, edge, labels[0])
        last = labels[-1]
        edge = np.full(len(last), -1, dtype=np.int64)  # the group of each pixel in the last row; -1 for none
        edge[last > 0] = groups[len(open_regions) + last[last > 0] - 1]
        reached = set(np.unique(edge[edge >= 0]).tolist()) if row + rows < height else set()
        merged = _merge([*open_regions, *regions], groups)
        # The regions that continue below get new numbers.
        number = {group: place for place, group in enumerate(sorted(reached))}
        edge = np.array([number.get(int(group), -1) for group in edge])
        open_regions = [merged[group] for group in sorted(reached)]
        yield [region for group, region in enumerate(merged) if group not in reached]


def _strip_regions(
    classes: NDArray[np.uint8], num_classes: int, row: int
) -> tuple[NDArray[np.int32], list[Region]]:
    """Numbers the regions of a strip: (h, W) from 1 on, 0 for no class; and region n - 1 for number n."""
    import shapely.geometry  # noqa: PLC0415 - part of an extra

    labels = np.zeros(classes.shape, dtype=np.int32)
    regions: list[Region] = []
    for index in range(num_classes):
        mask = (classes == index).astype(np.uint8)
        count, numbered = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
        labels += np.where(numbered > 0, numbered + len(regions), 0)
        regions += [Region(index) for _ in range(count - 1)]
    below = Affine.translation(0, row)
    for outline, label in shapes(labels, mask=labels > 0, connectivity=4, transform=below):
        regions[int(label) - 1].parts.append(shapely.geometry.shape(outline))
    return labels, regions


def _measure(
    regions: list[Region], labels: NDArray[np.int32], confidence: NDArray[Any], areas: NDArray[Any]
) -> None:
    flat, count = labels.ravel(), len(regions) + 1
    pixels = np.bincount(flat, minlength=count)[1:]
    area = np.bincount(flat, areas.ravel(), minlength=count)[1:]
    sums = np.bincount(flat, confidence.ravel(), minlength=count)[1:]
    for region, *values in zip(regions, pixels.tolist(), area.tolist(), sums.tolist(), strict=True):
        region.pixels, region.area, region.confidence = values


def _joined(
    above: list[Region], below: list[Region], edge: NDArray[np.int64] | None, first: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The group of each region, those above before those below; connected regions have the same group."""
    count = len(above) + len(below)
    links = np.empty((2, 0), dtype=np.int64)
    if edge is not None:
        both = (edge >= 0) & (first > 0)
        links = np.unique(np.stack([edge[both], len(above) + first[both] - 1]), axis=1)
        kinds = np.array([region.class_index for region in [*above, *below]])
        links = links[:, kinds[links[0]] == kinds[links[1]]] if links.size else links
    graph = coo_array((np.ones(links.shape[1], dtype=np.int8), tuple(links)), shape=(count, count))
    groups: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return groups


def _merge(regions: list[Region], groups: NDArray[np.int32]) -> list[Region]:
    merged: dict[int, Region] = {}
    for region, group in zip(regions, groups.tolist(), strict=True):
        if group in merged:
            merged[group].add(region)
        else:
            merged[group] = region
    return [merged[group] for group in range(len(merged))]
