"""Times a dataset of many tiles: preparation, tags and training samples; and measures their memory.

    python scripts/bench_load.py [--tiles 12500 25000 50000]

Scenes are small and have few colours, so that times depend on the number of tiles rather than on their
pixels. Each size runs in a new process. Where time is linear, all columns have the same microseconds per
tile. CPU time is measured, so that other work on the machine matters little.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from measuring import heading, peak_megabytes
from PIL import Image

from ome.data.datamodules import TileDataModule
from ome.data.datasets import TagDataset
from ome.data.prepare import prepare_scenes
from ome.data.raw import RawLayout, layout_from_facts
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tag_filter import coverage, filter_tiles, minimum_coverage
from ome.data.tags import TagTable
from ome.data.tiles import Tile, tile_scene
from ome.data.transforms import Augmentation
from ome.pipeline.checksums import damaged, write_listing

TILE = 32
ROWS, COLUMNS = 5, 10
"""Rows and columns of tiles in a scene."""

SAMPLES = 1000
"""Training samples per timing."""


def write_raw(folder: Path, scenes: int) -> RawLayout:
    """Writes scenes with one class in the left half and another in the right half."""
    folder.mkdir(parents=True)
    colours = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 0]], np.uint8)
    names = [f"scene_{number:05d}" for number in range(scenes)]
    for number, name in enumerate(names):
        mask = np.full((ROWS * TILE, COLUMNS * TILE), number % 3)
        mask[:, COLUMNS * TILE // 2 :] = (number + 1) % 3
        Image.fromarray(colours[mask]).save(folder / f"{name}_mask.tif")
        Image.fromarray(colours[mask] // 2).save(folder / f"{name}.tif")
    facts = {
        "name": "many",
        "bands": "rgb",
        "reference": "full",
        "classes": {"road": [255, 255, 255], "roof": [0, 0, 255], "field": [0, 255, 0]},
        "images": {"rgb": {"pattern": "{scene}.tif"}},
        "masks": {"full": {"pattern": "{scene}_mask.tif"}},
        "split": {"train": names},
    }
    return layout_from_facts(facts)


def tag(index: SceneIndex, reader: SceneReader, path: Path) -> TagTable:
    """Does the work of `stage=labels`: tags and filter of every tile, written and read again."""
    names = index.palette.names
    tiles: list[Tile] = []
    fractions = []
    for scene in index.scenes:
        mask = reader.mask(Tile(scene.name, 0, 0, scene.height, scene.width))
        for tile in tile_scene(scene.name, scene.height, scene.width, TILE, TILE):
            tiles.append(tile)
            window = mask[tile.row : tile.row + TILE, tile.column : tile.column + TILE]
            fractions.append(coverage(window, len(names)))
    covered = np.array(fractions)
    kept = filter_tiles(covered, minimum_coverage(names, 0.02, {}), "tile").kept
    splits = ("train",) * len(tiles)
    TagTable(names, tuple(tiles), (covered > 0).astype(np.uint8), splits, kept).write(path)
    return TagTable.read(path, names)


def read_samples(reader: SceneReader, table: TagTable) -> None:
    """Reads training samples in random order, as a loader does."""
    kept = table.select("train", kept=True)
    dataset = TagDataset(reader, kept.tiles, kept.by_name, Augmentation(TILE))
    data = TileDataModule(dataset, batch=8, seed=0, steps=SAMPLES // 8)
    for _ in data.train_dataloader():
        pass


def look_up(reader: SceneReader, table: TagTable) -> None:
    """Checks whether each tile has a mask, as stages do."""
    for tile in table.tiles:
        reader.has_mask(tile.scene)


def measure(count: int) -> dict[str, float]:
    """Times the work on `count` tiles: CPU microseconds per tile (or per sample), and megabytes."""
    results: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object], per: int = count) -> object:
        start = time.process_time()
        result = work()
        results[name] = 1e6 * (time.process_time() - start) / per
        return result

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        layout = write_raw(folder / "raw", count // (ROWS * COLUMNS))
        timed("prepare", lambda: prepare_scenes(layout, folder / "raw", folder / "scenes"))
        index = SceneIndex.read(folder / "scenes")
        reader = SceneReader(index)
        table = tag(index, reader, folder / "tags.csv")
        timed("labels", lambda: tag(index, reader, folder / "tags.csv"))
        timed("looking up every tile", lambda: look_up(reader, table))
        timed("training samples, each", lambda: read_samples(reader, table), SAMPLES)
        for tile in table.tiles:  # one of the three files that `pseudo` writes
            (folder / "masks" / tile.scene).mkdir(parents=True, exist_ok=True)
            (folder / "masks" / tile.scene / f"{tile.name}.png").write_bytes(bytes(1000))
        timed("list of its files", lambda: write_listing(folder / "masks"))
        timed("check of the files by size", lambda: damaged(folder / "masks", count, verify=False))
        timed("check of the files by hash", lambda: damaged(folder / "masks", count, verify=True))
    results["peak memory, MB"] = peak_megabytes()
    return results


def main() -> None:
    """Prints one column per size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, nargs="+", default=[12500, 25000, 50000])
    counts = parser.parse_args().tiles
    heading(f"Many tiles of {TILE} x {TILE}, {ROWS * COLUMNS} in a scene: CPU microseconds per tile")
    columns = []
    for count in counts:
        with get_context("spawn").Pool(1) as pool:  # for separate peak memories
            columns.append(pool.apply(measure, (count,)))
    print(f"  {'':<26}" + "".join(f"{count:>12}" for count in counts))
    for name in columns[0]:
        print(f"  {name:<26}" + "".join(f"{column[name]:>12.1f}" for column in columns), flush=True)


if __name__ == "__main__":
    main()
