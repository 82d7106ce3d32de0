"""Times pseudo masks and CAMs in one and in several processes, and projects both to whole datasets.

    python scripts/bench_scaling.py [--image RASTER] [--tiles 4] [--backbone resnet50]

Every process has one thread and its own tiles, like a rank. The projection scales the seconds per tile,
measured with all cores busy, to the pixels of a dataset's tiles, and divides them by the number of cores.
"""

import argparse
import multiprocessing
import time
from typing import Literal

import numpy as np
import torch
from measuring import Bytes, cores, heading, image_argument, picture, smooth_noise

from ome.crf.densecrf import DenseCrf
from ome.data.transforms import to_tensor
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.pseudo.fusion import multi_scale_cams
from ome.pseudo.uncertainty import pseudo_label
from ome.training.hardware import channels_last

CLASSES, SIZE = 3, 256
DATASETS = {
    "Potsdam, 23 scenes, 256 / 128": (46_575, 256),
    "Vaihingen, 16 scenes of about 2500 x 2000, 128 / 128": (16 * 19 * 15, 128),
    "DeepGlobe, 563 scenes, 306": (563 * 64, 306),
}
"""Number of training tiles, and their side in pixels."""

Kind = Literal["pseudo", "cam"]


def work(kind: Kind, image: Bytes, tiles: int, backbone: str, times: list[float]) -> None:
    """Computes pseudo labels or CAMs of some tiles, and appends the seconds per tile to `times`."""
    torch.set_num_threads(1)
    cam = smooth_noise(np.random.default_rng(1), CLASSES, SIZE, 6)
    if kind == "pseudo":
        pseudo_label(DenseCrf(image), cam)
        start = time.perf_counter()
        for _ in range(tiles):
            pseudo_label(DenseCrf(image), cam)
    else:
        network = channels_last(SeamNetwork(build_backbone(backbone, None, 8), CLASSES)).eval()
        tags = torch.ones(1, CLASSES)
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(tiles):
                multi_scale_cams(lambda batch: network(batch).refined, to_tensor(image)[None], tags)
    times.append((time.perf_counter() - start) / tiles)


def seconds_of_a_tile(kind: Kind, image: Bytes, tiles: int, backbone: str, processes: int) -> float:
    """Returns the mean seconds per tile in each of several simultaneous processes."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        times = manager.list()
        started = [
            multiprocessing.get_context("spawn").Process(
                target=work, args=(kind, image, tiles, backbone, times)
            )
            for _ in range(processes)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        return float(np.mean(list(times)))


def main() -> None:
    """Parses the command line, measures and projects."""
    parser = argparse.ArgumentParser(
        description="Throughput per process, and projected hours for the datasets."
    )
    image_argument(parser)
    parser.add_argument("--tiles", type=int, default=4, help="pseudo labels in each process; CAMs: one")
    parser.add_argument("--backbone", default="resnet50")
    options = parser.parse_args()
    image, available = picture(options.image, SIZE), cores()
    heading(f"Tiles of {SIZE} in 1 and {available} processes")
    projected: dict[Kind, float] = {}
    kinds: tuple[tuple[Kind, str, int], ...] = (
        ("pseudo", f"pseudo label, |K| = {CLASSES}", options.tiles),
        ("cam", f"multi-scale CAMs, {options.backbone}", 1),
    )
    for kind, title, tiles in kinds:
        alone, together = (
            seconds_of_a_tile(kind, image, tiles, options.backbone, count) for count in (1, available)
        )
        efficiency = alone / together
        print(
            f"  {title:<36} 1 process {alone:7.3f} s a tile; {available}: {together:7.3f} s in each,", end=" "
        )
        print(f"{available / together:6.2f} tiles/s in all, efficiency {efficiency:.2f}", flush=True)
        projected[kind] = together
    print("\n| hours | tiles | CAMs, 2 cores | CAMs, 16 cores | pseudo, 2 cores | pseudo, 16 cores |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (tiles, size) in DATASETS.items():
        hours = {kind: tiles * one * (size / SIZE) ** 2 / 3600 for kind, one in projected.items()}
        figures = [hours[kind] / count for kind in ("cam", "pseudo") for count in (2, 16)]
        print(f"| {name} | {tiles} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")


if __name__ == "__main__":
    main()
