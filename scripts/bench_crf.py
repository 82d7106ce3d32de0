"""Times the pseudo label of a tile: plain pydensecrf, one call a run, against the shared lattice.

    python scripts/bench_crf.py [IMAGE ...] [--size 256 512] [--classes 4] [--threads 2] [--repeats 3]

Both sides run in this process, one after the other, on the same image and CAM. The plain way makes
1 + 6 |K| independent CRFs, each with its own kernels, as the original implementation does.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ome.errors import UserError
from ome.pseudo.crf import CrfParameters, DenseCrf, ReferenceDenseCrf
from ome.pseudo.uncertainty import RESPONSE_SCALES, PseudoLabel, certainty_weight, pseudo_label

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]


def smooth_noise(generator: np.random.Generator, channels: int, size: int, cells: int) -> Float:
    """Returns (channels, size, size) random fields with about `cells` x `cells` bumps, in 0..1."""
    coarse = torch.from_numpy(generator.random((1, channels, cells, cells), np.float32))
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0]
    least, largest = fine.amin((1, 2), keepdim=True), fine.amax((1, 2), keepdim=True)
    return np.asarray(((fine - least) / (largest - least)).numpy(), np.float32)


def synthetic_image(size: int, seed: int = 0) -> Bytes:
    """Returns a (size, size, 3) uint8 image of patches with shading, texture and sensor noise."""
    generator = np.random.default_rng(seed)
    patches = smooth_noise(generator, 6, size, max(3, size // 32)).argmax(0)
    colours = generator.integers(40, 200, (6, 3)).astype(np.float32)
    shading = smooth_noise(generator, 3, size, max(3, size // 8)).transpose(1, 2, 0)
    image = colours[patches] + 40 * shading + generator.normal(0, 2, (size, size, 3))
    rounded: Bytes = np.clip(image, 0, 255).astype(np.uint8)
    return rounded


def crop(path: Path, size: int) -> Bytes:
    """Reads the central size x size window of an image file as RGB."""
    with Image.open(path) as image:
        if min(image.size) < size:
            raise UserError(f"{path} is {image.width} x {image.height}, smaller than --size {size}")
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return np.array(image.convert("RGB").crop((left, top, left + size, top + size)), np.uint8)


def plain_pseudo_label(image: Bytes, cam: Float) -> tuple[Bytes, Bytes]:
    """Makes mask and weight with a new pydensecrf for each of the 1 + 6 |K| runs."""
    mask = ReferenceDenseCrf(image).infer(cam).argmax(0)
    present = np.unique(mask)
    variance = np.zeros(mask.shape)
    for label in range(len(present)) if len(present) > 1 else ():
        votes = []
        for scale in RESPONSE_SCALES:
            maps = cam[present]
            maps[label] **= np.float32(scale)
            votes.append(ReferenceDenseCrf(image).infer(maps).argmax(0) == label)
        variance = np.maximum(variance, np.var(votes, axis=0))
    return mask.astype(np.uint8), certainty_weight(variance, "tile")


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Returns the least wall-clock time of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_megabytes() -> float:
    """Returns the largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def bench(name: str, image: Bytes, classes: int, threads: int, repeats: int) -> None:
    """Prints one line each for our CRF and for pydensecrf, and how far they agree."""
    size = len(image)
    cam = smooth_noise(np.random.default_rng(1), classes + 1, size, 6)
    cam[classes] = 0.0  # a class of the data set that the tags exclude

    def ours(workers: int) -> PseudoLabel:
        return pseudo_label(DenseCrf(image, CrfParameters(), workers), cam)

    start_peak = peak_megabytes()
    label = ours(threads)
    ours_peak = peak_megabytes()
    mask, weight = plain_pseudo_label(image, cam)
    plain_peak = peak_megabytes()
    plain = seconds(lambda: plain_pseudo_label(image, cam), repeats)
    print(f"{name}, {size} x {size}, |K| = {len(np.unique(mask))}")
    print(f"  plain pydensecrf       {plain:7.2f} s")
    for workers in sorted({1, threads}):
        own = seconds(lambda workers=workers: ours(workers), repeats)  # type: ignore[misc]
        print(f"  shared lattice, {workers} thr. {own:7.2f} s   {plain / own:5.1f} x faster")
    same_mask, same_weight = (label.mask == mask).mean(), (label.weight == weight).mean()
    print(f"  equal masks {same_mask:.5f}, equal weights {same_weight:.5f}")
    print(f"  peak RSS {start_peak:.0f} MB before, {ours_peak:.0f} after ours, {plain_peak:.0f} after both")


def main() -> None:
    """Parses the command line and runs the benchmark for every image and size."""
    parser = argparse.ArgumentParser(description="Plain pydensecrf against the shared lattice.")
    parser.add_argument("images", nargs="*", type=Path, help="image files; without any, a synthetic image")
    parser.add_argument("--size", nargs="+", type=int, default=[256, 512], help="side of the central window")
    parser.add_argument("--classes", type=int, default=4, help="classes with a CAM")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="timed calls, of which the least counts")
    options = parser.parse_args()
    DenseCrf(synthetic_image(16)).infer(np.ones((2, 16, 16)))  # compiles, or loads what is compiled
    try:
        for size in options.size:
            for path in options.images or [None]:
                image = crop(path, size) if path else synthetic_image(size)
                name = path.name if path else "synthetic image"
                bench(name, image, options.classes, options.threads, options.repeats)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
