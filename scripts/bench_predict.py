"""Maps a scene: one window at a time, against strips; and the memory for a scene 20,000 pixels wide.

    python scripts/bench_predict.py [--encoder resnet18] [--size 1024] [--tile 256] [--rows 2048]

Both sides read the same windows (half of each overlaps the next), run the same untrained FPN and blend with
the same weights. The baseline is a loop that reads one window at a time, predicts it in fp32, and has the
sums of the whole scene in memory. Ours is `map_scene`, in bf16 where the device has instructions for it (use
`--precision 32-true` for fp32); it also writes the Cloud-Optimized GeoTIFF, the areas, and the files from
which a killed run resumes. Memory is measured first, without a network; `--rows 20000` maps the whole square.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import torch
from measuring import (
    Bytes,
    Float,
    compare,
    heading,
    peak_megabytes,
    resident_megabytes,
    seconds,
    synthetic_image,
)
from rasterio.transform import from_origin
from rasterio.windows import Window

from ome.data.byte_image import open_scene
from ome.geo.blending import blending_window
from ome.geo.windows import window_starts, window_stride
from ome.inference.card import SegmenterCard
from ome.inference.map_rows import MapOptions, windows_at_a_time
from ome.inference.mapping import map_scene
from ome.inference.predictor import Predictor

CLASSES = {f"class_{index}": (40 * index, 255 - 40 * index, 128) for index in range(6)}
WIDTH = 20_000
STRIDE = 0.5
"""Of the windows of both sides, as a fraction of their side."""


def write_scene(path: Path, height: int, width: int) -> None:
    """Writes a scene of repeated patches, tiled and uncompressed."""
    patch = synthetic_image(512).transpose(2, 0, 1)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "tiled": True, "BIGTIFF": "IF_SAFER"}
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5800000, 0.5, 0.5)}
    with rasterio.open(path, "w", height=height, width=width, **profile, **place) as dataset:
        strip = np.tile(patch, (1, 1, -(-width // 512)))[:, :, :width]
        for row in range(0, height, 512):
            rows = min(512, height - row)
            dataset.write(strip[:, :rows], window=Window(0, row, width, rows))


def cheap(images: Bytes) -> Float:
    """Meaningless probabilities of six classes, computed in almost no time."""
    values = images.transpose(0, 3, 1, 2).astype(np.float32)
    probabilities: Float = np.concatenate([values, 255 - values], axis=1)
    probabilities /= 765
    return probabilities


def loop(path: Path, card: SegmenterCard, predict: Predictor) -> Bytes:
    """Maps a scene one window at a time."""
    size, stride, weight = card.tile, window_stride(card.tile, STRIDE), blending_window(card.tile)
    with rasterio.open(path) as dataset:
        total = np.zeros((len(CLASSES), dataset.height, dataset.width), np.float32)
        weights = np.zeros(total.shape[1:], np.float32)
        for row in window_starts(dataset.height, size, stride):
            for column in window_starts(dataset.width, size, stride):
                pixels = dataset.read(window=Window(column, row, size, size))
                here = slice(row, row + size), slice(column, column + size)
                total[:, *here] += predict(pixels.transpose(1, 2, 0)[None])[0].cpu().numpy() * weight
                weights[here] += weight
        classes: Bytes = (total / weights).argmax(axis=0).astype(np.uint8)
        return classes


def bench_speed(options: argparse.Namespace, folder: Path) -> None:
    """Prints the megapixels per second of both sides."""
    card = SegmenterCard("fpn", options.encoder, CLASSES, (1, 2, 3), (0, 1, 2), options.tile)
    torch.manual_seed(0)
    device = torch.device(options.device)
    predict = Predictor(card.build(), device, precision=options.precision)
    torch.manual_seed(0)
    predict_fp32 = Predictor(card.build(), device)
    windows = windows_at_a_time(options.batch, options.tile, device)
    path = folder / "scene.tif"
    write_scene(path, options.size, options.size)

    def ours() -> None:
        with open_scene(path, card.channels, None) as scene:
            map_scene(scene, "map", card, predict, folder / "map", MapOptions(batch=windows, stride=STRIDE))

    plain = loop(path, card, predict_fp32)
    megapixels = options.size**2 / 1e6
    before = seconds(lambda: loop(path, card, predict_fp32), 2)
    after = seconds(ours, 2)
    compare(f"{options.size} x {options.size}, windows of {options.tile}", before, after)
    with rasterio.open(folder / "map/map.tif") as dataset:
        same = (dataset.read(1) == plain).mean()
    print(f"    {megapixels / before:.2f} and {megapixels / after:.2f} Mpx/s; {same:.4%} of pixels are equal")


def bench_memory(options: argparse.Namespace, folder: Path) -> None:
    """Prints the time and the memory for a scene 20,000 pixels wide."""
    card = SegmenterCard("fpn", "resnet18", CLASSES, (1, 2, 3), (0, 1, 2), options.tile)
    path = folder / "wide.tif"
    write_scene(path, options.rows, WIDTH)
    before = resident_megabytes()

    def ours() -> None:
        with open_scene(path, card.channels, None) as scene:
            map_scene(scene, "wide", card, cheap, folder / "wide", MapOptions(confidence=True, stride=STRIDE))

    taken = seconds(ours, 1)
    loops = (len(CLASSES) + 1) * 4 * WIDTH * WIDTH / (1 << 20)
    speed = WIDTH * options.rows / 1e6 / taken
    print(f"  {WIDTH} x {options.rows}, six classes, without a network: {taken:.0f} s, {speed:.1f} Mpx/s")
    print(
        f"    peak {peak_megabytes():.0f} MB, of which {before:.0f} MB before the first row; the loop's sums "
        f"would take {loops:.0f} MB for {WIDTH} x {WIDTH}",
        flush=True,
    )


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description="One window at a time against strips.")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--batch", type=int, help="windows together; default: what suits the device")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    heading(f"Maps of whole scenes, FPN on {options.encoder}, on {options.device}")
    with tempfile.TemporaryDirectory() as folder:
        bench_memory(options, Path(folder))
        bench_speed(options, Path(folder))


if __name__ == "__main__":
    main()
