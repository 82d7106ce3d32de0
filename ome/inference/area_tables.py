"""Tables of the area of each class, in one map or over many scenes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ome.files import write_csv
from ome.geo.areas import PixelAreas
from ome.geo.flat import FlatRasters
from ome.ignore import IGNORE
from ome.progress import console, print_table

ALL = "all"
"""Takes the place of a scene's name in the rows of the totals."""

HEADER = ("class", "pixels", "percent", "area_m2")

Counts = Mapping[str, Any]
"""`pixels` and, if the scene has a coordinate reference system, `area_m2`, both by class."""


def write_areas(path: Path, flat: FlatRasters, names: Sequence[str], areas: PixelAreas) -> dict[str, Any]:
    """Writes and prints the area of each class in a map.

    Args:
        path: The CSV file to write.
        flat: The rows of the map.
        names: Class names in order of index.
        areas: Measures the pixels.

    Returns:
        Pixels by class, `empty_pixels`, and square metres by class if the map has a coordinate reference
        system.
    """
    pixels, covered = areas.by_class(lambda row, height: flat.read("classes", row, height)[0])
    per_class = {name: int(pixels[index]) for index, name in enumerate(names)}
    counts: dict[str, Any] = {"pixels": per_class, "empty_pixels": int(pixels[IGNORE])}
    if areas.unit == "m2":
        counts["area_m2"] = {name: round(float(covered[index]), 2) for index, name in enumerate(names)}
    header = _header(counts)
    write_csv(path, header, [row[: len(header)] for row in _rows(counts)])
    no_metres = "" if areas.unit == "m2" else " (no coordinate reference system: areas in pixels)"
    _print(f"the map{no_metres}", counts)
    if counts["empty_pixels"]:
        console.print(f"{counts['empty_pixels']} pixels without data have no class")
    return counts


def write_total_areas(path: Path, scenes: Mapping[str, Counts]) -> None:
    """Writes pixels, percent and square metres of each class, by scene and in total; prints the totals.

    Writes nothing if there are no scenes. The totals have square metres only if all scenes have.

    Args:
        path: The CSV file to write.
        scenes: The counts of each scene by its name; those of a folder of photographs are below `maps`.
    """
    maps = dict(_maps(scenes))
    if not maps:
        return
    pixels: Counter[str] = Counter()
    metres: Counter[str] = Counter()
    for counts in maps.values():
        pixels.update(counts["pixels"])
        metres.update(counts.get("area_m2", {}))
    total: dict[str, Any] = {"pixels": pixels}
    if all("area_m2" in counts for counts in maps.values()):
        total["area_m2"] = metres
    rows = [[name, *row] for name, counts in {**maps, ALL: total}.items() for row in _rows(counts)]
    write_csv(path, ["scene", *HEADER], rows)
    no_metres = "" if "area_m2" in total else " (not all have a coordinate reference system)"
    _print(f"{len(maps)} scenes{no_metres}", total)
    console.print(f"areas of all scenes: {path}")


def _maps(scenes: Mapping[str, Counts]) -> Iterator[tuple[str, Counts]]:
    for scene, counts in scenes.items():
        if "maps" in counts:
            yield from ((f"{scene}/{name}", one) for name, one in counts["maps"].items())
        else:
            yield scene, counts


def _header(counts: Counts) -> tuple[str, ...]:
    return HEADER if "area_m2" in counts else HEADER[:-1]


def _rows(counts: Counts) -> Iterator[list[str]]:
    """The cells of `HEADER` for each class; percent is of the pixels, and the last empty, without areas."""
    metres = counts.get("area_m2", {})
    measured = metres if any(metres.values()) else counts["pixels"]
    total = sum(measured.values()) or 1
    for name, number in counts["pixels"].items():
        area = f"{metres[name]:.2f}" if name in metres else ""
        yield [name, str(number), f"{100 * measured[name] / total:.2f}", area]


def _print(title: str, counts: Counts) -> None:
    header = _header(counts)
    print_table(title, header, [row[: len(header)] for row in _rows(counts)])
