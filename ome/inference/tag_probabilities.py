"""Probabilities of the tags of tiles, from a classifier."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, batches_of_one_size
from ome.data.transforms import to_tensor
from ome.inference.classifier import DEFAULT_MEGAPIXELS
from ome.inference.outputs import on_host
from ome.networks.one_vs_all import OneVsAllNetwork
from ome.networks.pooling import pool_maps
from ome.networks.seam import SeamNetwork
from ome.progress import meter
from ome.training.hardware import channels_last


def tag_probabilities(
    network: SeamNetwork | OneVsAllNetwork,
    reader: SceneReader,
    tiles: Sequence[Tile],
    device: torch.device,
    what: str,
) -> NDArray[np.float64]:
    """The probability of each class in each tile: the sigmoid of the pooled CAM.

    Args:
        network: A classifier.
        reader: Reads the images.
        tiles: N tiles of any sizes.
        device: Device of the classifier.
        what: Title of the progress display.

    Returns:
        (N, C) float64 in [0, 1].
    """
    network = channels_last(network.to(device)).eval()
    pixels = int(1e6 * DEFAULT_MEGAPIXELS[device.type] / network.zoom**2)
    batches = []
    with meter(f"{what}, tiles", len(tiles)) as progress, torch.inference_mode():
        for indices in batches_of_one_size(tiles, lambda tile: pixels // (tile.height * tile.width)):
            images = to_tensor(np.stack([reader.image(tiles[index]) for index in indices])).to(device)
            # As in the classifier's loss.
            logits = pool_maps(network(images).cam, network.pooling)
            batches.append(on_host(logits.double().sigmoid(), "the predicted tags"))
            progress.advance(len(indices))
    return np.concatenate(batches)
