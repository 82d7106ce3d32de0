"""Times a training step: a plain fp32 step, against a step of the trainer.

    python scripts/bench_training.py [--backbone tu-tf_efficientnet_lite0] [--size 256] [--batch 4]
                                     [--device cpu] [--compile inductor] [--profile]

Both sides train the same networks on the same samples, which are in memory. The plain step computes all
gradients, in fp32 and the usual memory layout, and reads the loss at each step. Ours is the step of
`stage=cam` and `stage=seg` on that device: frozen layers have no gradients, the loss is not read at each
step, the layout is channels-last, the optimiser is fused, depthwise convolutions on a CPU have gradients of
their own, and the precision is bf16 where the device has instructions for it (use `--precision 32-true` for
fp32).

`--compile inductor` also times ours compiled as with `trainer.compile=true`, on a GPU with CUDA graphs, and
prints the seconds until the first step is finished. `--profile` prints which operators take the time of ours,
and on a GPU the fraction of the time in which it computes.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measuring import compare, heading, image_argument, picture, seconds, shifted
from torch import Tensor, nn
from torch.nn import functional as F

from ome.data.transforms import to_tensor
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import build_segmenter
from ome.training.compiling import compiled
from ome.training.fit import fitted_precision
from ome.training.hardware import Hardware, autocast, decided_precision
from ome.training.pixel_losses import pixel_cross_entropy, weigh_pixels
from ome.training.seam_losses import seam_loss

CLASSES = 5
STEPS = 2

Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Side:
    """One side of the comparison: plain or ours, optionally compiled or profiled."""

    precision: str
    plain: bool = False
    backend: str | None = None
    profiled: bool = False


def step_time(network: nn.Module, loss: Loss, device: torch.device, side: Side) -> float:
    """Returns the seconds of a step of SGD."""
    plain = side.plain
    if not plain:
        accelerator = "cpu" if device.type == "cpu" else "gpu"
        fitted_precision(network, Hardware(accelerator, precision=side.precision))
    if side.backend:
        network.forward = compiled(network.forward, device, side.backend)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, fused=not plain)

    def step() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            with autocast(device, "32-true" if plain else side.precision):
                value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if plain:
                value.item()
        if device.type == "cuda":
            torch.cuda.synchronize()

    started = time.perf_counter()
    step()
    if side.backend:
        print(f"    compiled after {time.perf_counter() - started:.0f} s", flush=True)
    taken = seconds(step, 2) / STEPS
    if side.profiled:
        profile(step, device)
    return taken


def profile(step: Callable[[], None], device: torch.device) -> None:
    """Prints the slowest operators, and the fraction of the time in which the device computes."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    started = time.perf_counter()
    with torch.profiler.profile(activities=kinds) as profiler:
        step()
    elapsed = time.perf_counter() - started
    attribute = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = profiler.key_averages()
    busy = sum(getattr(event, attribute) for event in events) / 1e6
    print(f"    {device.type} computes {busy / elapsed:.0%} of the time, which includes the profiler's")
    for event in sorted(events, key=lambda event: -getattr(event, attribute))[:8]:
        share = getattr(event, attribute) / 1e6 / busy
        print(f"      {event.key[:60]:<60} {event.count / STEPS:7.0f} a step {share:7.1%}", flush=True)


def seam_step(name: str, images: Tensor, tags: Tensor, side: Side) -> float:
    """Returns the seconds of a step of the classifier."""
    torch.manual_seed(0)
    network = SeamNetwork(build_backbone(name, None, 8), CLASSES).to(images.device).train()
    if not side.plain:
        network.freeze()

    def loss() -> Tensor:
        half = F.interpolate(images, scale_factor=0.5, mode="bilinear", align_corners=True)
        return seam_loss(network(images), network(half), tags).total

    return step_time(network, loss, images.device, side)


def segmenter_step(name: str, images: Tensor, mask: Tensor, side: Side) -> float:
    """Returns the seconds of a step of the segmenter."""
    torch.manual_seed(0)
    network = build_segmenter("deeplabv3plus", name, CLASSES).to(images.device).train()
    weight = torch.full_like(mask, 255)

    def loss() -> Tensor:
        pixels = weigh_pixels(mask, weight, "continuous")
        return (pixel_cross_entropy(network(images), mask) * pixels.factor).sum() / pixels.normaliser.sum()

    return step_time(network, loss, images.device, side)


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description="The plain fp32 step against the trainer's.")
    image_argument(parser)
    parser.add_argument(
        "--backbone", default="resnet50" if torch.cuda.is_available() else "tu-tf_efficientnet_lite0"
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", metavar="BACKEND", help="e.g. inductor")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    image = to_tensor(picture(options.image, options.size))
    images = shifted(image, options.batch).to(options.device)
    tags = torch.ones(options.batch, CLASSES, device=options.device)
    mask = torch.randint(0, CLASSES, (options.batch, options.size, options.size), device=options.device)
    name, precision = options.backbone, decided_precision(options.precision, images.device)
    heading(f"A training step of {options.batch} tiles of {options.size}, {name}: plain, ours in {precision}")
    sides = [Side(precision, plain=True), Side(precision, profiled=options.profile)]
    for title, step, target in (
        ("SEAM classifier", seam_step, tags),
        ("DeepLabV3+ segmenter", segmenter_step, mask),
    ):
        plain, ours = (step(name, images, target, side) for side in sides)
        compare(title, plain, ours)
        print(f"    ours: {options.batch / ours:.1f} images/s", flush=True)
        if options.compile:
            fastest = step(name, images, target, Side(precision, backend=options.compile))
            compare(f"{title}: ours, compiled", ours, fastest)


if __name__ == "__main__":
    main()
