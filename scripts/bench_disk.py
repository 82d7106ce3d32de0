"""Compares the size of CAMs on disk: float64 maps of all classes, against the files of `stage=cam`.

    python scripts/bench_disk.py [--size 256] [--tiles 4] [--image RASTER]

The maps are multi-scale CAMs of an untrained network on real or synthetic pixels, with tags of three of five
classes. Pseudo masks of the maps before writing and after reading them are compared.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from measuring import compare, heading, image_argument, picture

from ome.crf.densecrf import DenseCrf
from ome.data.cams import read_cams, write_cams
from ome.data.transforms import to_tensor
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.pseudo.fusion import multi_scale_cams
from ome.pseudo.uncertainty import pseudo_label

TAGS = np.array([1, 0, 1, 1, 0], np.uint8)


def main() -> None:
    """Parses the command line and prints sizes and agreement."""
    parser = argparse.ArgumentParser(description="CAMs as float64 against CAMs as stage=cam writes them.")
    image_argument(parser)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--tiles", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = SeamNetwork(build_backbone("resnet18", None, 8), len(TAGS)).eval()
    pixels = picture(options.image, options.size)
    images = [np.roll(pixels, 37 * number, axis=1) for number in range(options.tiles)]
    with torch.inference_mode():
        tags = torch.from_numpy(TAGS).repeat(options.tiles, 1)
        cams = multi_scale_cams(
            lambda batch: network(batch).refined, to_tensor(np.stack(images)), tags
        ).numpy()
    heading(f"CAMs on disk, {options.tiles} tiles of {options.size}: float64 maps, ours, ratio")
    written = masks = weights = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for image, cam in zip(images, cams, strict=True):
            path = Path(folder) / "cams.npz"
            write_cams(path, cam, TAGS)
            written += path.stat().st_size
            before, after = (pseudo_label(DenseCrf(image), c) for c in (cam, read_cams(path, len(TAGS))))
            masks += (before.mask == after.mask).mean() / options.tiles
            weights += (before.weight == after.weight).mean() / options.tiles
    compare("CAMs", cams.size * 8 / 1e6, written / 1e6, "MB")
    print(f"    equal pseudo masks {masks:.5f}, equal weights {weights:.5f}", flush=True)


if __name__ == "__main__":
    main()
