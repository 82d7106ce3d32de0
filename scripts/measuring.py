"""Functions that the benchmarks share: time, memory, test images, configurations, and the machine."""

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from hydra import compose, initialize_config_module
from numpy.typing import NDArray
from omegaconf import DictConfig
from rasterio.windows import Window

from ome.geo.gdal import plain_pixels

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Returns the shortest wall-clock time of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_megabytes() -> float:
    """Returns the peak resident set size of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def resident_megabytes() -> float:
    """Returns the current resident set size of this process on Linux, elsewhere the peak."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return peak_megabytes()
    return int(status.read_text().split()[1]) * resource.getpagesize() / (1 << 20)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Describes the machine and versions of its software in one line."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cores()} cores of {model}{gpu}; Python {platform.python_version()}, torch {torch.__version__}"


def heading(title: str) -> None:
    """Prints what is measured, where and when."""
    print(f"\n## {title}\n{machine()}; {time.strftime('%Y-%m-%d')}\n", flush=True)


def compare(name: str, baseline: float, ours: float, unit: str = "s") -> None:
    """Prints a baseline, our figure and their ratio in one line."""
    print(f"  {name:<44} {baseline:9.3f} {unit} {ours:9.3f} {unit}   {baseline / ours:6.2f} x", flush=True)


def smooth_noise(generator: np.random.Generator, channels: int, size: int, cells: int) -> Float:
    """Returns random fields (channels, size, size) in 0..1 with about `cells` x `cells` maxima and minima."""
    coarse = torch.from_numpy(generator.random((1, channels, cells, cells), np.float32))
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0]
    least, largest = fine.amin((1, 2), keepdim=True), fine.amax((1, 2), keepdim=True)
    return np.asarray(((fine - least) / (largest - least)).numpy(), np.float32)


def synthetic_image(size: int) -> Bytes:
    """Returns a (size, size, 3) uint8 image of patches with shading, texture and sensor noise."""
    generator = np.random.default_rng(0)
    patches = smooth_noise(generator, 6, size, max(3, size // 32)).argmax(0)
    colours = generator.integers(40, 200, (6, 3)).astype(np.float32)
    shading = smooth_noise(generator, 3, size, max(3, size // 8)).transpose(1, 2, 0)
    image = colours[patches] + 40 * shading + generator.normal(0, 2, (size, size, 3))
    rounded: Bytes = np.clip(image, 0, 255).astype(np.uint8)
    return rounded


def image_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--image`, a raster with real pixels."""
    parser.add_argument(
        "--image",
        help="raster whose central window is used, e.g. /vsizip/2_Ortho_RGB.zip/2_10.tif; default: synthetic",
    )


def picture(path: str | None, size: int) -> Bytes:
    """Returns the central (size, size, 3) uint8 window of a raster, or a synthetic image without one."""
    if path is None:
        return synthetic_image(size)
    with plain_pixels(), rasterio.open(path) as raster:
        if min(raster.shape) < size:
            sys.exit(f"{path} is {raster.width} x {raster.height}, smaller than {size}")
        window = Window((raster.width - size) // 2, (raster.height - size) // 2, size, size)
        return np.ascontiguousarray(raster.read((1, 2, 3), window=window).transpose(1, 2, 0))


def shifted(image: torch.Tensor, count: int) -> torch.Tensor:
    """Returns a batch (count, C, H, W) of one image (C, H, W), shifted differently in each copy."""
    return torch.stack([image.roll(17 * number, -1) for number in range(count)])


def composed(*overrides: str) -> DictConfig:
    """Composes a configuration that needs neither data nor pretrained weights."""
    without = ["dataset.raw=none", "backbone.weights=null", "backbone.encoder_weights=null"]
    with initialize_config_module("ome.conf", version_base="1.3"):
        return compose("config", overrides=[*without, *overrides])
