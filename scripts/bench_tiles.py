"""Times reading tiles in random order: PNG clips decoded one by one, against windows of prepared scenes.

    python scripts/bench_tiles.py [--size 256] [--scenes 4] [--side 2048] [--image RASTER]

The clips are what single-paper repositories cut: every tile, with its overlap, as a PNG file of its own. Each
side runs in one process, as one loader worker does. Told as well: the disk that both take, and how the memory
of a worker grows with the number of scenes.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import rasterio
from measuring import Bytes, compare, heading, image_argument, picture, resident_megabytes, seconds
from PIL import Image

from ome.data.palette import Palette
from ome.data.scenes import Scene, SceneIndex, SceneReader, plain_pixels
from ome.data.tiles import Tile, tile_scene
from ome.progress import track

READS = 400
"""Tiles that are read in one timing."""


def write_scenes(folder: Path, pixels: Bytes, count: int) -> SceneIndex:
    """Writes `count` scenes as `stage=prepare` does, each turned a little, and their index."""
    side = len(pixels)
    layout = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8"}
    layout |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    layout |= {"interleave": "pixel", "photometric": "RGB"}
    scenes = []
    for number in range(count):
        name = f"scene_{number}"
        path = folder / "images" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        with plain_pixels(), rasterio.open(path, "w", **layout) as raster:
            raster.write(np.roll(pixels, 97 * number, axis=1).transpose(2, 0, 1))
        scenes.append(Scene(name, "train", side, side, 3, f"images/{name}.tif", None))
    index = SceneIndex(folder, tuple(scenes), Palette({"ground": (255, 255, 255)}, {}), "bench", (1, 2, 3))
    index.write()
    return index


def write_clips(folder: Path, reader: SceneReader, tiles: Sequence[Tile]) -> None:
    """Writes tiles as PNG."""
    folder.mkdir(parents=True)
    for tile in track(tiles, "cut the clips", len(tiles)):
        Image.fromarray(reader.image(tile)).save(folder / f"{tile.name}.png")


def disk(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_all(folder: Path, tiles: Sequence[Tile]) -> None:
    """Reads tiles in a process of their own, and prints what memory that took."""
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
    index = write_scenes(folder / "scenes", pixels, scenes)
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
    clips = disk(folder / "clips") / 1e6 * len(tiles) / len(chosen)
    prepared = disk(folder / "scenes") / 1e6
    compare("disk: clips, scenes", clips, prepared, "MB")
    context = multiprocessing.get_context("spawn")
    for count in (1, scenes):
        part = folder / f"first_{count}"
        write_scenes(part, pixels, count)
        some = [tile for tile in tiles if int(tile.scene.split("_")[1]) < count]
        process = context.Process(target=read_all, args=(part, some * (scenes // count)))
        process.start()
        process.join()


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
