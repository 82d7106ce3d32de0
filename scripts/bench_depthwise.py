"""Times gradients of depthwise convolutions on the CPU: torch's, against those of a training.

    python scripts/bench_depthwise.py [--precision bf16-mixed]

Layers of EfficientNet-Lite0 at an output stride of 16 with 4 tiles of 512, of MobileNetV2, and of ConvNeXt.
Both sides compute the gradients of images and weights from the same upstream gradient in the channels-last
layout. Those of dilated convolutions are compared in fp32, since torch's in bf16 may kill the process.
"""

import argparse
import copy

import torch
from measuring import compare, heading, seconds
from torch import Tensor, nn

from ome.training.depthwise import speed_up_depthwise
from ome.training.hardware import autocast, channels_last, decided_precision

CPU = torch.device("cpu")
BATCH = 4
LAYERS = (
    # channels, pixels per side, kernel, stride, dilation
    (96, 257, 3, 2, 1),
    (144, 131, 5, 2, 1),
    (240, 64, 5, 1, 1),
    (672, 32, 5, 1, 1),
    (1152, 32, 5, 1, 2),
    (1152, 32, 3, 1, 2),
    (96, 128, 7, 1, 1),
)


def work(layer: nn.Conv2d, images: Tensor, precision: str) -> float:
    """Returns the seconds of the gradients of a layer."""
    with autocast(CPU, precision):
        result = layer(images)
    upstream = torch.randn_like(result)
    inputs = [images, layer.weight]
    return seconds(lambda: torch.autograd.grad(result, inputs, upstream, retain_graph=True), 5)


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description="Gradients of depthwise convolutions: torch's, ours.")
    parser.add_argument("--precision", default="auto")
    precision = decided_precision(parser.parse_args().precision, CPU)
    heading(f"Gradients of a depthwise convolution, {BATCH} images: torch, ours")
    for channels, side, kernel, stride, dilation in LAYERS:
        padding = 0 if stride > 1 else dilation * (kernel // 2)
        plain = channels_last(nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels))
        ours = copy.deepcopy(plain)
        speed_up_depthwise(ours)
        images = torch.rand(BATCH, channels, side, side).contiguous(memory_format=torch.channels_last)
        used = "32-true" if dilation > 1 else precision
        images = images.bfloat16() if used == "bf16-mixed" else images
        kind = f", stride {stride}" * (stride > 1) + f", dilation {dilation}" * (dilation > 1)
        name = f"{kernel} x {kernel}{kind}, {channels} channels, {used.partition('-')[0]}"
        compare(name, work(plain, images.requires_grad_(), used), work(ours, images, used))


if __name__ == "__main__":
    main()
