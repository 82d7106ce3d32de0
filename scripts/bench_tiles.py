"""Times reading tiles in random order: PNG clips decoded one by one, against windows of prepared scenes.

    python scripts/bench_tiles.py [--size 256] [--scenes 4] [--side 2048] [--image RASTER]

Clips are the usual format of research code: every tile, with its overlap, is a separate PNG file. Each side
runs in one process, like a loader worker. The size of both on disk, and the growth of a worker's memory with
the number of scenes, are printed as well.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch
from measuring import (
    Bytes,
    compare,
    heading,
    image_argument,
    picture,
    resident_megabytes,
    seconds,
    smooth_noise,
)
from PIL import Image

from ome.data.datasets import MaskDataset
from ome.data.prepare import prepare_scenes
from ome.data.raw import layout_from_facts
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, tile_scene
from ome.data.transforms import Augmentation, band_statistics, to_tensor
from ome.geo.raster import read_png
from ome.progress import track

READS = 400
"""Tiles per timing."""


def write_scenes(folder: Path, pixels: Bytes, count: int) -> SceneIndex:
    """Prepares `count` scenes, shifted copies of one image."""
    names = [f"scene_{number}" for number in range(count)]
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(np.roll(pixels, 97 * number, axis=1)).save(raw / f"{name}.tif")
    source = {"archive": None, "pattern": "{scene}.tif", "channels": [1, 2, 3]}
    facts = {"name": "bench", "bands": "rgb", "classes": {"ground": [255, 255, 255]}}
    layout = layout_from_facts(facts | {"images": {"rgb": source}, "split": {"train": names}})
    return prepare_scenes(layout, raw, folder / "scenes")


def write_clips(folder: Path, reader: SceneReader, tiles: Sequence[Tile]) -> None:
    """Writes tiles as PNG."""
    folder.mkdir(parents=True)
    for tile in track(tiles, "cut the clips", len(tiles)):
        Image.fromarray(reader.image(tile)).save(folder / f"{tile.name}.png")


def disk(folder: Path) -> int:
    """Returns the size of all files in a folder in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_all(folder: Path, tiles: Sequence[Tile]) -> None:
    """Reads tiles in a new process, and prints by how much its memory has grown."""
    reader = SceneReader(SceneIndex.read(folder))
    reader.image(tiles[0])
    before = resident_megabytes()
    for tile in tiles:
        reader.image(tile)
    scenes = len(reader.index.scenes)
    print(
        f"  {scenes:3d} scenes, {len(tiles)} reads: a worker grows by {resident_megabytes() - before:.0f} MB",
        flush=True,
    )


def bench(size: int, scenes: int, pixels: Bytes, folder: Path) -> None:
    """Prints time, disk and memory."""
    index = write_scenes(folder, pixels, scenes)
    reader = SceneReader(index)
    tiles = [tile for s in index.scenes for tile in tile_scene(s.name, s.height, s.width, size, size // 2)]
    order = np.random.default_rng(0).permutation(len(tiles))[:READS]
    chosen = [tiles[place] for place in order]
    write_clips(folder / "clips", reader, chosen)
    paths = [str(folder / "clips" / f"{tile.name}.png") for tile in chosen]

    def opencv() -> None:
        for path in paths:
            cv2.imread(path)

    def pillow() -> None:
        for path in paths:
            np.array(Image.open(path))

    def windows() -> None:
        for tile in chosen:
            reader.image(tile)

    ours = seconds(windows) / len(chosen) * 1e3
    compare("a tile: PNG by OpenCV, window of a scene", seconds(opencv) / len(chosen) * 1e3, ours, "ms")
    compare("a tile: PNG by Pillow, window of a scene", seconds(pillow) / len(chosen) * 1e3, ours, "ms")
    bench_samples(reader, chosen, size, folder / "masks")
    clips = disk(folder / "clips") / 1e6 * len(tiles) / len(chosen)
    prepared = disk(folder / "scenes") / 1e6
    compare("disk: clips, scenes", clips, prepared, "MB")
    context = multiprocessing.get_context("spawn")
    for count in (1, scenes):
        part = folder / f"first_{count}"
        write_scenes(part, pixels, count)
        some = [tile for tile in tiles if int(tile.scene.split("_")[1]) < count]
        process = context.Process(target=read_all, args=(part / "scenes", some * (scenes // count)))
        process.start()
        process.join()


def bench_samples(reader: SceneReader, tiles: Sequence[Tile], size: int, folder: Path) -> None:
    """Prints the time for a segmenter's sample from disk or from the cache, and for its normalisation."""
    folder.mkdir()
    mask = smooth_noise(np.random.default_rng(0), 6, size, 6)
    cv2.imwrite(str(folder / "mask.png"), mask.argmax(0).astype(np.uint8))
    cv2.imwrite(str(folder / "weight.png"), (255 * mask.max(0)).astype(np.uint8))

    def masks(_tile: Tile) -> tuple[Bytes, Bytes]:
        return read_png(folder / "mask.png"), read_png(folder / "weight.png")

    def drawn(dataset: MaskDataset) -> None:
        for number in range(len(tiles)):
            dataset[number, number]

    varied = Augmentation(size, (0.75, 1.25), dihedral=True)
    uncached, cached = (MaskDataset(reader, tiles, masks, varied) for _ in range(2))
    with patch("ome.data.datasets.KEPT_BYTES", 0):
        uncached[0]  # decides not to cache
    drawn(cached)
    read, from_cache = [seconds(partial(drawn, dataset)) / len(tiles) * 1e3 for dataset in (uncached, cached)]
    compare("a sample of image, mask and weight: read, cached", read, from_cache, "ms")
    image = reader.image(tiles[0])
    mean, std = (torch.tensor(values) for values in band_statistics(3))

    def computed() -> None:
        for _ in tiles:
            ((torch.from_numpy(image).float().div_(255) - mean) / std).movedim(-1, -3).contiguous()

    def looked_up() -> None:
        for _ in tiles:
            to_tensor(image)

    plain, ours = [seconds(work) / len(tiles) * 1e3 for work in (computed, looked_up)]
    compare("normalising a tile: computed, looked up", plain, ours, "ms")


def main() -> None:
    """Parses the command line and runs the benchmark in a temporary folder."""
    parser = argparse.ArgumentParser(description="PNG clips against windows of prepared scenes.")
    image_argument(parser)
    parser.add_argument("--size", type=int, default=256, help="side of a tile")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--side", type=int, default=2048, help="side of a scene")
    options = parser.parse_args()
    pixels = picture(options.image, min(options.side, 512) if options.image else options.side)
    repeats = -(-options.side // len(pixels))
    pixels = np.tile(pixels, (repeats, repeats, 1))[: options.side, : options.side]
    heading("Reading tiles in random order: clips, ours, ratio")
    with tempfile.TemporaryDirectory() as folder:
        bench(options.size, options.scenes, pixels, Path(folder))


if __name__ == "__main__":
    main()
