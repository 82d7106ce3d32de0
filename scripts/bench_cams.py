"""Times multi-scale CAMs: one image and eight forward passes at a time, against batches of tiles.

    python scripts/bench_cams.py [--backbone resnet50] [--stride 8] [--size 256] [--tiles 2] [--device cpu]

Both sides run the same network on the same tiles and device; without `--weights` it is untrained. The
baseline is the loop of the published codes: one forward pass for every scale and flip of every tile, and the
affinity matrix of all pixels as a whole. Ours is `multi_scale_cams` on a batch, with the affinity in blocks
and the layout channels-last, in every precision of `--precisions`; `stage.cam.export.precision` is fp32 by
default.
"""

import argparse

import torch
from measuring import compare, heading, image_argument, peak_megabytes, picture, seconds, shifted
from torch import Tensor
from torch.nn import functional as F

from ome.data.transforms import to_tensor
from ome.inference.classifier import DEFAULT_MEGAPIXELS
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.pseudo.fusion import multi_scale_cams, normalise_cam
from ome.training.hardware import autocast, channels_last

SCALES = (0.5, 1.0, 1.5, 2.0)
CLASSES = 5


def one_by_one(network: SeamNetwork, images: Tensor, tags: Tensor) -> Tensor:
    """Fuses the CAMs of each tile from eight forward passes."""
    size = tuple(images.shape[2:])
    fused = []
    for image, tag in zip(images, tags, strict=True):
        maps = []
        for scale in SCALES:
            resized = F.interpolate(image[None], [round(scale * side) for side in size], mode="bilinear")
            for mirrored in (False, True):
                cam = network(resized.flip(-1) if mirrored else resized).refined
                cam = F.interpolate(cam, size, mode="bilinear")[0]
                maps.append((cam.flip(-1) if mirrored else cam).cpu())
        fused.append(normalise_cam(torch.stack(maps).sum(0), tag.cpu()))
    return torch.stack(fused)


def bench(network: SeamNetwork, images: Tensor, tags: Tensor, precisions: list[str]) -> None:
    """Prints the time per tile on both sides, and the differences of the maps."""
    entries, pixels = network.entries, int(1e6 * DEFAULT_MEGAPIXELS[images.device.type])
    count = len(images)

    def batched(precision: str) -> Tensor:
        def refined(batch: Tensor) -> Tensor:
            with autocast(images.device, precision):
                maps: Tensor = network(batch).refined
            return maps

        return multi_scale_cams(refined, images, tags, SCALES, pixels=pixels).cpu()

    with torch.inference_mode():
        batched("32-true")
        peak = peak_megabytes()
        network.entries = None
        maps = one_by_one(network, images, tags)
        before = seconds(lambda: one_by_one(network, images, tags), 2) / count
        network.entries = entries
        channels_last(network)
        for precision in precisions:
            ours = batched(precision)
            after = seconds(lambda: batched(precision), 2) / count  # noqa: B023 - called at once
            compare(f"a tile of {images.shape[2]}, {count} at a time, {precision}", before, after)
            difference = (maps - ours).abs()
            print(
                f"    maps differ by {difference.max():.1e} at most, {difference.mean():.1e} on average; "
                f"{(maps.argmax(1) == ours.argmax(1)).float().mean():.3%} of the pixels have the same class"
            )
    print(f"    peak memory of ours {peak:.0f} MB", flush=True)


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description="One image at a time against batches of tiles.")
    image_argument(parser)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--tiles", type=int, default=2)
    parser.add_argument("--weights", help="of the backbone, see `backbone.weights`")
    parser.add_argument("--precisions", nargs="*", default=["32-true", "bf16-mixed"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    network = SeamNetwork(build_backbone(options.backbone, options.weights, options.stride), CLASSES)
    network.to(options.device).eval()
    image = to_tensor(picture(options.image, options.size))
    images = shifted(image, options.tiles).to(options.device)
    tags = torch.ones(options.tiles, CLASSES, device=options.device)
    heading(f"Multi-scale CAMs of {options.backbone}, stride {options.stride}, on {options.device}")
    bench(network, images, tags, options.precisions)


if __name__ == "__main__":
    main()
