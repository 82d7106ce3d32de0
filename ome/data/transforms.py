"""Augmentation of tiles: pure functions of a tile and a seed, so that a resumed training repeats itself."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # asked before the import; looks a version up online

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.ignore import IGNORE

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet statistics of RGB in [0, 1]; used for every band order, as the pretrained weights expect them."""

cv2.setNumThreads(0)  # data loading is parallel over workers already


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Normalises an image with the ImageNet statistics.

    Args:
        image: (..., H, W, 3) uint8.

    Returns:
        (..., 3, H, W) float32.
    """
    scaled = torch.from_numpy(np.ascontiguousarray(image)).float().div_(255)
    normalised = (scaled - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    return normalised.movedim(-1, -3).contiguous()


@dataclass(frozen=True)
class Augmentation:
    """How a training tile is varied.

    Attributes:
        crop: Height and width of the result, pixels.
        scale: Smallest and largest factor of the random resize before the crop.
        jitter: Strength of brightness, contrast, saturation (factors) and hue (turns); 0 is off.
        dihedral: Use all eight rotations and reflections (imagery seen from above has no upright);
            otherwise the horizontal flip alone.
    """

    crop: int
    scale: tuple[float, float] = (0.5, 1.5)
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    dihedral: bool = False

    def build(self) -> "Augment":
        """Builds the callable; done once in each worker."""
        return Augment(self)


class Augment:
    """Random resize, padding, crop, flip and colour jitter of an image and the masks that go with it."""

    def __init__(self, augmentation: Augmentation) -> None:
        low, high = augmentation.scale
        size = augmentation.crop
        steps: list[Any] = [
            A.RandomScale(scale_limit=(low - 1, high - 1), interpolation=cv2.INTER_LINEAR, p=1.0),
            A.PadIfNeeded(
                size,
                size,
                position="random",
                border_mode=cv2.BORDER_CONSTANT,
                fill=[255 * mean for mean in IMAGE_MEAN],
                fill_mask=IGNORE,
            ),
            A.RandomCrop(size, size),
            A.D4(p=1.0) if augmentation.dihedral else A.HorizontalFlip(p=0.5),
        ]
        if any(augmentation.jitter):
            brightness, contrast, saturation, hue = augmentation.jitter
            steps.append(A.ColorJitter(brightness, contrast, saturation, hue, p=1.0))
        self._compose = A.Compose(steps)

    def __call__(
        self, seed: int, image: NDArray[np.uint8], masks: Sequence[NDArray[np.uint8]] = ()
    ) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
        """Varies one tile.

        Args:
            seed: Decides every random choice.
            image: (H, W, 3) uint8.
            masks: (H, W) uint8 each, resized by nearest neighbour and padded with 255.

        Returns:
            The image (crop, crop, 3) and the masks (crop, crop), in the order given.
        """
        self._compose.set_random_seed(seed)
        varied = self._compose(image=image, masks=list(masks)) if masks else self._compose(image=image)
        return varied["image"], list(varied.get("masks", []))
