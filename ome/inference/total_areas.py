"""Total area of each class over many scenes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from ome.files import write_csv
from ome.progress import console

ALL = "all"
"""What stands in place of a scene in the rows of the sums."""

Counts = Mapping[str, Any]
"""What `map_scene` gives: `pixels` and, where the scene has a reference system, `area_m2` by class."""


def write_total_areas(path: Path, scenes: Mapping[str, Counts]) -> None:
    """Writes pixels, percent and square metres of each class, scene by scene and of all; prints the latter.

    Square metres of all stand there where every scene has some.

    Args:
        path: The CSV file to write.
        scenes: The counts of each scene by its name; those of a folder of photographs lie under `maps`.
    """
    maps = dict(_maps(scenes))
    if not maps:
        path.unlink(missing_ok=True)
        return
    pixels: Counter[str] = Counter()
    areas: Counter[str] = Counter()
    for counts in maps.values():
        pixels.update(counts["pixels"])
        areas.update(counts.get("area_m2", {}))
    total: dict[str, Any] = {"pixels": pixels}
    if all("area_m2" in counts for counts in maps.values()):
        total["area_m2"] = areas
    rows = [[name, *row] for name, counts in {**maps, ALL: total}.items() for row in _rows(counts)]
    write_csv(path, ["scene", "class", "pixels", "percent", "area_m2"], rows)
    measured = "area_m2" in total
    shown = Table(title=f"{len(maps)} scenes" + ("" if measured else " (not all have a reference system)"))
    for title in ("class", "pixels", "percent", *(["area_m2"] if measured else [])):
        shown.add_column(title, justify="left" if title == "class" else "right")
    for row in _rows(total):
        shown.add_row(*row[: len(shown.columns)])
    console.print(shown)
    console.print(f"areas of all scenes: {path}", highlight=False)


def _maps(scenes: Mapping[str, Counts]) -> Iterator[tuple[str, Counts]]:
    for scene, counts in scenes.items():
        if "maps" in counts:
            yield from ((f"{scene}/{name}", one) for name, one in counts["maps"].items())
        else:
            yield scene, counts


def _rows(counts: Counts) -> Iterator[list[str]]:
    """Class, pixels, percent, and square metres, which may be empty."""
    total = max(sum(counts["pixels"].values()), 1)
    areas = counts.get("area_m2", {})
    for name, number in counts["pixels"].items():
        area = f"{areas[name]:.2f}" if name in areas else ""
        yield [name, str(number), f"{100 * number / total:.2f}", area]
