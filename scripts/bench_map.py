"""Measures costs and benefits of overlapping windows: seams, scores and speed at several strides.

    python scripts/bench_map.py runs/town scenes/synthetic_rgb_full [--network full] [--tile 128]

A trained segmenter predicts the test scenes of the folder at each stride, with and without the mirror image.
The results are compared with the prediction of each whole scene as one window (the last line of each half),
for which the scenes must fit into memory. For each setting, the script prints how often a pixel is predicted;
megapixels per second and core (CPU time, so that other work on the machine matters little); the mean absolute
difference of probabilities from the whole scene's, within four pixels of the border of a window and
everywhere else; the fraction of pixels with another class; and the mIoU with the reference masks.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measuring import Bytes, Float, heading
from numpy.typing import NDArray

from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile
from ome.geo.sliding import predict_windows
from ome.geo.windows import window_starts
from ome.inference.card import SegmenterCard
from ome.inference.predictor import Predictor
from ome.inference.segmenter_folders import network_folder
from ome.scoring.confusion import confusion_matrix
from ome.scoring.scores import Scores

STRIDES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.25)
NEAR = 4
"""Pixels on each side of a window's border that count as the seam."""


class TestScene(NamedTuple):
    """A scene: pixels (H, W, bands), reference (H, W), probabilities (C, H, W) of one window."""

    pixels: Bytes
    reference: Bytes
    whole: Float


def seams(height: int, width: int, size: int, stride: int) -> NDArray[np.bool_]:
    """Marks the pixels near the border of a window inside a scene, (H, W)."""
    near = np.zeros((height, width), bool)
    for axis, length in enumerate((height, width)):
        starts = window_starts(length, size, stride)
        for edge in {*starts, *(start + size for start in starts)} - {0, length}:
            part = slice(max(edge - NEAR, 0), edge + NEAR)
            near[part if axis == 0 else slice(None), part if axis == 1 else slice(None)] = True
    return near


def predicted(pixels: Bytes, predict: Predictor, classes: int, size: int, stride: int, batch: int) -> Float:
    """Returns the probabilities (C, H, W) of a scene, predicted in windows."""

    def read(row: int, column: int, height: int, width: int) -> Bytes:
        return pixels[row : row + height, column : column + width]

    height, width = pixels.shape[:2]
    blocks = predict_windows(read, height, width, predict, classes, size=size, stride=stride, batch=batch)
    return torch.cat([block.probabilities for block in blocks], 1).cpu().numpy()


def whole(pixels: Bytes, predict: Predictor) -> Float:
    """Returns the probabilities (C, H, W) of a scene, predicted as one window."""
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % 32), (0, -width % 32), (0, 0)), mode="reflect")
    return predict(padded[None])[0, :, :height, :width].cpu().numpy()


def bench(
    scenes: Sequence[TestScene], predict: Predictor, names: tuple[str, ...], size: int, part: float
) -> str:
    """Returns the cells of the table for one stride, a fraction of `size`."""
    stride, count = max(1, int(size * part)), len(names)
    difference, pixels, seconds = np.zeros(2), np.zeros(2), 0.0
    matrix, others, windows, total = np.zeros((count, count), np.int64), 0, 0, 0
    for scene in scenes:
        height, width = scene.reference.shape
        started = time.process_time()
        probabilities = predicted(scene.pixels, predict, count, size, stride, 8)
        seconds += time.process_time() - started
        apart, near = np.abs(probabilities - scene.whole).mean(axis=0), seams(height, width, size, stride)
        difference += [apart[near].sum(), apart[~near].sum()]
        pixels += [near.sum(), (~near).sum()]
        classes = probabilities.argmax(axis=0).astype(np.uint8)
        others += int((classes != scene.whole.argmax(axis=0)).sum())
        matrix += confusion_matrix(classes, scene.reference, count)
        windows += len(window_starts(height, size, stride)) * len(window_starts(width, size, stride))
        total += height * width

    near_seam, elsewhere = difference / np.maximum(pixels, 1)
    cost = f"{windows * size**2 / total:.2f} | {total / 1e6 / seconds:.3f}"
    score = 100 * Scores(matrix, names).miou
    return f"{cost} | {near_seam:.4f} | {elsewhere:.4f} | {others / total:.2%} | {score:.2f}"


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description="Seams, scores and speed at several strides.")
    parser.add_argument("run", type=Path)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--network", default="weak")
    parser.add_argument("--tile", type=int, help="side of a window; default: as in training")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--strides", type=float, nargs="*", default=STRIDES)
    parser.add_argument("--scenes", dest="count", type=int, help="number of test scenes")
    parser.add_argument("--no-mirror", dest="mirror", action="store_false")
    options = parser.parse_args()
    folder = network_folder(options.run / "seg", options.network)
    card = SegmenterCard.read(folder)
    network, device, size = card.load(folder), torch.device(options.device), options.tile or card.tile
    reader = SceneReader(SceneIndex.read(options.scenes), card.channels)
    heading(f"Windows of {size} pixels, {card.segmenter} on {card.encoder}, on {device}")
    print("| stride | mirror image | predicted | Mpx/s a core | at seams | elsewhere | other class | mIoU |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    tiles = [
        Tile(scene.name, 0, 0, scene.height, scene.width)
        for scene in reader.index.split("test")[: options.count]
    ]
    for flip in (False, True) if options.mirror else (False,):
        predict = Predictor(network, device, flip=flip, precision=options.precision)
        images = [(reader.image(tile), reader.mask(tile)) for tile in tiles]
        scenes = [TestScene(image, mask, whole(image, predict)) for image, mask in images]
        mirrored = "yes" if flip else "no"
        for part in options.strides:
            row = bench(scenes, predict, tuple(card.names), size, part)
            print(f"| {part} | {mirrored} | {row} |", flush=True)
        matrix = sum(
            confusion_matrix(scene.whole.argmax(axis=0).astype(np.uint8), scene.reference, len(card.names))
            for scene in scenes
        )
        miou = 100 * Scores(np.asarray(matrix), tuple(card.names)).miou
        print(f"| one window | {mirrored} | 1.00 | | | | | {miou:.2f} |", flush=True)


if __name__ == "__main__":
    main()
