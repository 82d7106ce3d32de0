"""Times multi-scale CAMs: one image and eight forward passes at a time, against batches of tiles.

    python scripts/bench_cams.py [--backbone resnet50] [--stride 8] [--size 256] [--tiles 2] [--device cpu]

Both sides run the same untrained network on the same tiles and device. The loop is that of the lineage: every
scale and flip of every tile alone, the affinity of all pixels built whole. Ours is `multi_scale_cams` on a
batch, the affinity in blocks.
"""

import argparse

import torch
from measuring import compare, heading, image_argument, peak_megabytes, picture, seconds
from torch import Tensor
from torch.nn import functional as F

from ome.data.transforms import to_tensor
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.pseudo.fusion import fuse_cams, multi_scale_cams
from ome.stages.classifying import DEFAULT_MEGAPIXELS

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
        fused.append(fuse_cams(torch.stack(maps), tag.cpu()))
    return torch.stack(fused)


def bench(network: SeamNetwork, images: Tensor, tags: Tensor) -> None:
    """Prints the time of a tile on both sides, and how far the maps differ."""
    entries, pixels = network.entries, int(1e6 * DEFAULT_MEGAPIXELS[images.device.type])

    def loop() -> Tensor:
        network.entries = None
        return one_by_one(network, images, tags)

    def batched() -> Tensor:
        network.entries = entries
        return multi_scale_cams(
            lambda batch: network(batch).refined, images, tags, SCALES, pixels=pixels
        ).cpu()

    with torch.inference_mode():
        ours = batched()
        peak = peak_megabytes()
        difference = (loop() - ours).abs().max()
        count = len(images)
        compare(
            f"a tile of {images.shape[2]}, {count} at a time",
            seconds(loop, 2) / count,
            seconds(batched, 2) / count,
        )
    print(f"    largest difference of a map {difference:.1e}; peak memory of ours {peak:.0f} MB", flush=True)


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description="One image at a time against batches of tiles.")
    image_argument(parser)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--tiles", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    network = SeamNetwork(build_backbone(options.backbone, None, options.stride), CLASSES)
    network.to(options.device).eval()
    image = to_tensor(picture(options.image, options.size))
    images = torch.stack([image.roll(17 * number, -1) for number in range(options.tiles)]).to(options.device)
    tags = torch.ones(options.tiles, CLASSES, device=options.device)
    heading(f"Multi-scale CAMs of {options.backbone}, stride {options.stride}, on {options.device}")
    bench(network, images, tags)


if __name__ == "__main__":
    main()
