"""A classifier's class probabilities of whole tiles."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ome.data.scenes import SceneReader
from ome.data.tiles import Tile, batches_of_one_size
from ome.data.transforms import to_tensor
from ome.inference.classifier import DEFAULT_MEGAPIXELS
from ome.progress import meter
from ome.training.hardware import channels_last


def tag_probabilities(
    network: nn.Module, reader: SceneReader, tiles: Sequence[Tile], device: torch.device, what: str
) -> NDArray[np.float64]:
    """The probability of each class in each tile: the sigmoid of the pooled CAM.

    Args:
        network: A classifier.
        reader: Of the scenes.
        tiles: N of them, of any sizes.
        device: Where to compute.
        what: The work, for the meter.

    Returns:
        (N, C), in [0, 1].
    """
    network = channels_last(network.to(device)).eval()
    pixels = int(1e6 * DEFAULT_MEGAPIXELS[device.type])
    found = []
    with meter(f"{what}, tiles", len(tiles)) as shown, torch.inference_mode():
        for indices in batches_of_one_size(tiles, lambda tile: pixels // (tile.height * tile.width)):
            images = to_tensor(np.stack([reader.image(tiles[index]) for index in indices])).to(device)
            # As the classifier's loss pools it.
            logits = network(images).cam.mean(dim=(2, 3))
            found.append(logits.double().sigmoid().cpu().numpy())
            shown.advance(len(indices))
    return np.concatenate(found)
