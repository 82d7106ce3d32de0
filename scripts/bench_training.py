"""Times a training step: the plain fp32 step, against the step as the trainer makes it.

    python scripts/bench_training.py [--backbone resnet18] [--size 256] [--batch 4] [--device cpu]

Both sides step the same networks on the same samples, which are in memory. The plain step differentiates
everything, in fp32, in the usual memory layout, and reads its loss at each step. Ours is what `stage=cam` and
`stage=seg` do on that device: frozen layers are not differentiated, the loss is not read at each step, the
layout is channels-last, the optimiser fused, and the precision bf16 where the device has instructions for it
(`--precision 32-true`: without).
"""

import argparse
from collections.abc import Callable

import torch
from measuring import compare, heading, image_argument, picture, seconds
from torch import Tensor, nn
from torch.nn import functional as F

from ome.data.transforms import to_tensor
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import build_segmenter
from ome.training.hardware import autocast, channels_last, decided_precision
from ome.training.pixel_losses import pixel_cross_entropy, weigh_pixels
from ome.training.seam_losses import seam_loss

CLASSES = 5
STEPS = 2

Loss = Callable[[], Tensor]


def step_time(network: nn.Module, loss: Loss, device: torch.device, precision: str, *, plain: bool) -> float:
    """Returns the seconds of a step of SGD."""
    if not plain:
        channels_last(network)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, fused=not plain)

    def step() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            with autocast(device, "32-true" if plain else precision):
                value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if plain:
                value.item()
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    return seconds(step, 2) / STEPS


def seam_step(name: str, images: Tensor, tags: Tensor, precision: str, *, plain: bool) -> float:
    """Returns the seconds of a step of the classifier."""
    torch.manual_seed(0)
    network = SeamNetwork(build_backbone(name, None, 8), CLASSES).to(images.device).train()
    if not plain:
        network.freeze()

    def loss() -> Tensor:
        half = F.interpolate(images, scale_factor=0.5, mode="bilinear", align_corners=True)
        return seam_loss(network(images), network(half), tags).total

    return step_time(network, loss, images.device, precision, plain=plain)


def segmenter_step(name: str, images: Tensor, mask: Tensor, precision: str, *, plain: bool) -> float:
    """Returns the seconds of a step of the segmenter."""
    torch.manual_seed(0)
    network = build_segmenter("deeplabv3plus", name, CLASSES).to(images.device).train()
    weight = torch.full_like(mask, 255)

    def loss() -> Tensor:
        pixels = weigh_pixels(mask, weight, "continuous")
        return (pixel_cross_entropy(network(images), mask) * pixels.factor).sum() / pixels.normaliser.sum()

    return step_time(network, loss, images.device, precision, plain=plain)


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description="The plain fp32 step against the trainer's.")
    image_argument(parser)
    parser.add_argument("--backbone", default="resnet50" if torch.cuda.is_available() else "resnet18")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    image = to_tensor(picture(options.image, options.size))
    images = torch.stack([image.roll(17 * number, -1) for number in range(options.batch)]).to(options.device)
    tags = torch.ones(options.batch, CLASSES, device=options.device)
    mask = torch.randint(0, CLASSES, (options.batch, options.size, options.size), device=options.device)
    name, precision = options.backbone, decided_precision(options.precision, images.device)
    heading(f"A training step of {options.batch} tiles of {options.size}, {name}: plain, ours in {precision}")
    plain, ours = (seam_step(name, images, tags, precision, plain=plain) for plain in (True, False))
    compare("SEAM classifier", plain, ours)
    print(f"    ours: {options.batch / ours:.1f} images/s with the classifier", flush=True)
    plain, ours = (segmenter_step(name, images, mask, precision, plain=plain) for plain in (True, False))
    compare("DeepLabV3+ segmenter", plain, ours)
    print(f"    ours: {options.batch / ours:.1f} images/s with the segmenter", flush=True)


if __name__ == "__main__":
    main()
