"""Times the pseudo label of a tile: plain pydensecrf, one call a run, against the shared lattice.

    python scripts/bench_crf.py [--image RASTER] [--size 256 512] [--classes 2 4]

Both sides run in this process, one after the other, on the same image and CAM. The plain way makes
1 + 6 |K| independent CRFs, each with its own kernels, as the original implementation does, on one core. Ours
is timed for a tile on one core, and with as many tiles at a time as there are cores, as `stage=pseudo` works;
where there is a GPU, also on that: in torch and in Triton, one tile at a time and many a launch. A single run
(`infer`, as `stage=predict` takes with the CRF) is timed beside a run in a bundle.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from measuring import (
    Bytes,
    Float,
    compare,
    cores,
    heading,
    image_argument,
    peak_megabytes,
    picture,
    seconds,
    smooth_noise,
    synthetic_image,
)

from ome.crf.densecrf import DenseCrf
from ome.crf.reference import ReferenceDenseCrf
from ome.crf.torch_crf import BatchCrf, Engine, TorchCrf
from ome.pseudo.labellers import MOST_TILES, BatchLabeller
from ome.pseudo.response import certainty_weight
from ome.pseudo.uncertainty import RESPONSE_SCALES, Labelling, PseudoLabel, pseudo_label

ENGINES: tuple[Engine, ...] = ("torch", "triton")


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


def bench(image: Bytes, classes: int) -> None:
    """Prints what both sides took for one tile, and how far they agree."""
    size, workers = len(image), cores()
    cam = smooth_noise(np.random.default_rng(1), classes + 1, size, 6)
    cam[classes] = 0.0  # a class of the data set that the tags exclude
    tiles = 2 * workers

    def ours() -> PseudoLabel:
        return pseudo_label(DenseCrf(image), cam)

    def several() -> None:
        with ThreadPoolExecutor(workers) as pool:
            for job in [pool.submit(ours) for _ in range(tiles)]:
                job.result()

    before = peak_megabytes()
    label = ours()
    one = seconds(ours, 3)
    throughput = seconds(several, 2) / tiles
    after = peak_megabytes()
    mask, weight = plain_pseudo_label(image, cam)
    plain = seconds(lambda: plain_pseudo_label(image, cam), 2)
    present = len(np.unique(mask))
    compare(f"{size} x {size}, |K| = {present}, 1 core", plain, one)
    compare(f"{size} x {size}, |K| = {present}, {workers} cores", plain, throughput)
    print(f"    {agreement(label, mask, weight)}; ", end="")
    print(f"peak memory {after:.0f} MB, {workers} tiles at a time ({before:.0f} MB before)", flush=True)
    single = seconds(lambda: ReferenceDenseCrf(image).infer(cam), 2)
    crf, powers = DenseCrf(image), np.random.default_rng(2).uniform(0.5, 2, (24, len(cam))).astype(np.float32)
    alone = seconds(lambda: crf.infer(cam), 5)
    compare("    one run, its lattice made before", single, alone)
    share = seconds(lambda: crf.winners(cam, powers), 3) / len(powers)
    print(f"    a run in a bundle of eight takes {share:.3f} s: {alone / share:.2f} x", flush=True)
    if torch.cuda.is_available():
        bench_gpu(image, cam, plain, (mask, weight))


def bench_gpu(image: Bytes, cam: Float, plain: float, expected: tuple[Bytes, Bytes]) -> None:
    """Prints what a GPU takes for one tile with torch and with Triton, and for many tiles a launch."""
    title = f"{len(image)} x {len(image)}, |K| = {len(np.unique(expected[0]))}, GPU"
    for engine in ENGINES:
        torch.cuda.reset_peak_memory_stats()
        label = on_gpu(image, cam, engine)
        compare(f"{title}, {engine}", plain, seconds(partial(on_gpu, image, cam, engine), 5))
        peak = torch.cuda.max_memory_allocated() / (1 << 20)
        print(f"    {agreement(label, *expected)}; peak memory of the GPU {peak:.0f} MB", flush=True)
        took = seconds(partial(batch_on_gpu, image, cam, engine), 3) / MOST_TILES
        compare(f"{title}, {engine}, {MOST_TILES} tiles a launch", plain, took)


def batch_on_gpu(image: Bytes, cam: Float, engine: Engine) -> None:
    """Makes the pseudo labels of `MOST_TILES` different tiles of one picture."""
    crf_of = partial(BatchCrf, engine=engine)
    labeller = BatchLabeller(crf_of, Labelling(), torch.device("cuda"))
    images = [np.roll(image, 7 * tile, 1) for tile in range(MOST_TILES)]
    for _ in labeller(images, [cam] * MOST_TILES, [np.ones(image.shape[:2], bool)] * MOST_TILES):
        pass


def on_gpu(image: Bytes, cam: Float, engine: Engine) -> PseudoLabel:
    """Makes the pseudo label of a tile, and waits until the GPU is idle."""
    label = pseudo_label(TorchCrf(image, device="cuda", engine=engine), cam)
    torch.cuda.synchronize()
    return label


def agreement(label: PseudoLabel, mask: Bytes, weight: Bytes) -> str:
    """Says how far a pseudo label agrees with the plain one."""
    same_mask, same_weight = (label.mask == mask).mean(), (label.weight == weight).mean()
    return f"equal masks {same_mask:.5f}, equal weights {same_weight:.5f}"


def main() -> None:
    """Parses the command line and runs the benchmark for every size and number of classes."""
    parser = argparse.ArgumentParser(description="Plain pydensecrf against the shared lattice.")
    image_argument(parser)
    parser.add_argument("--size", nargs="+", type=int, default=[256, 512], help="side of the central window")
    parser.add_argument("--classes", nargs="+", type=int, default=[2, 4], help="classes with a CAM")
    options = parser.parse_args()
    pseudo_label(DenseCrf(synthetic_image(16)), smooth_noise(np.random.default_rng(0), 3, 16, 3))  # compiles
    heading("CRF and uncertainty of a tile: plain pydensecrf, ours, ratio")
    for size in options.size:
        for classes in options.classes:
            bench(picture(options.image, size), classes)


if __name__ == "__main__":
    main()
