"""Labels for AffinityNet: CAMs with a background channel, refined by two CRFs.

Ahn & Kwak, *Learning Pixel-level Semantic Affinity with Image-level Supervision*, CVPR 2018, section 3.2.1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ome.crf.inputs import Crf
from ome.ignore import IGNORE
from ome.pseudo.argmax import decided, uniform_without_data


def affinity_label(
    crf: Crf,
    cam: NDArray[np.floating],
    tags: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    alphas: Sequence[float] = (4.0, 24.0),
) -> NDArray[np.uint8]:
    """Labels the pixels of a tile whose class is the same with a strong and with a weak background.

    The background channel is (1 - max over classes of the CAM)^alpha, which is high where no class responds
    strongly; a smaller alpha makes it higher. Pixels of the background are ignored, because the dataset has
    no background class, and so are pixels to which the CRFs assign different classes.

    Args:
        crf: The CRF of the tile's image.
        cam: (C, H, W) normalised CAM in [0, 1].
        tags: (C,) of 0 and 1, at least one 1.
        valid: (H, W) bool, false for pixels without data.
        alphas: Powers of the background, above 0, with one CRF run each.

    Returns:
        (H, W) uint8: class index if all runs agree on a class and the pixel is `decided`, else 255.
    """
    classes = np.flatnonzero(tags)
    maps = np.asarray(cam, np.float32)[classes]
    stack = np.concatenate([1.0 - maps.max(axis=0, keepdims=True).clip(0.0, 1.0), maps])
    stack = uniform_without_data(stack, valid)
    powers = np.ones((len(alphas), len(stack)), np.float32)
    powers[:, 0] = alphas
    winners = crf.winners(stack, powers)
    agree = decided(maps, valid) & (winners == winners[0]).all(axis=0)
    class_of = np.concatenate([[IGNORE], classes]).astype(np.uint8)
    label: NDArray[np.uint8] = np.where(agree, class_of[winners[0]], np.uint8(IGNORE))
    return label
