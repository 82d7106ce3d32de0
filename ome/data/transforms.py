"""Augmentation of tiles, as pure functions of tile and seed, so that a resumed training is reproducible."""

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # before the import, which would query PyPI

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.ignore import IGNORE

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet statistics of RGB in [0, 1]; used for every band order, as the pretrained weights expect them.

Band i uses the values of i mod 3, in the same way as pretrained weights are extended to other band counts.
"""

cv2.setNumThreads(0)  # data loading is parallel over workers already


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Normalises an image with the ImageNet statistics.

    Args:
        image: (..., H, W, bands) uint8.

    Returns:
        (..., bands, H, W) float32.
    """
    tables = _normalised(image.shape[-1])
    result = np.empty((*image.shape[:-3], image.shape[-1], *image.shape[-3:-1]), np.float32)
    for place in np.ndindex(*image.shape[:-3]):
        for band, table in enumerate(tables):
            pixels = np.ascontiguousarray(image[(*place, ..., band)])
            cv2.LUT(pixels, table, dst=result[(*place, band)])
    return torch.from_numpy(result)


def to_device(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Normalises an image as `to_tensor` does, on a device; a GPU gets the bytes and is not waited for."""
    if device.type == "cpu":
        return to_tensor(image)
    pixels = torch.from_numpy(image)
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    return look_up(pixels.to(device, non_blocking=True))


def look_up(image: Tensor) -> Tensor:
    """Normalises an image (..., H, W, bands) uint8 on its device, to the bits of `to_tensor`."""
    bands = image.shape[-1]
    tables = _tables_on(bands, image.device)
    place = torch.arange(bands, device=image.device)[:, None, None]
    return tables[place, image.movedim(-1, -3).int()]


@cache
def _tables_on(bands: int, device: torch.device) -> Tensor:
    return torch.from_numpy(_normalised(bands)).to(device)


@cache
def _normalised(bands: int) -> NDArray[np.float32]:
    """Lookup table of the normalised values, (bands, 256), which is faster than computing every pixel."""
    mean, std = (torch.tensor(values)[:, None] for values in band_statistics(bands))
    values = torch.arange(256).float().div_(255)
    return np.asarray(((values - mean) / std).numpy(), np.float32)


def band_statistics(bands: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each band, in [0, 1], for normalisation."""
    return _cycled(IMAGE_MEAN, bands), _cycled(IMAGE_STD, bands)


def _cycled(values: tuple[float, ...], bands: int) -> list[float]:
    return [values[band % len(values)] for band in range(bands)]


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation of training tiles.

    Attributes:
        crop: Height and width of the result, pixels.
        scale: Smallest and largest factor of the random resize before the crop.
        jitter: Strength of brightness, contrast, saturation (factors) and hue (turns); 0 is off. With other
            than three bands only brightness (relative to the tile's mean) and contrast are varied.
        dihedral: Use all eight rotations and reflections (imagery seen from above has no upright);
            otherwise the horizontal flip alone.
    """

    crop: int
    scale: tuple[float, float] = (0.5, 1.5)
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    dihedral: bool = False


class Augment:
    """Random resize, padding, crop, flip and colour jitter of an image and the masks that go with it."""

    def __init__(self, augmentation: Augmentation, bands: int = 3) -> None:
        low, high = augmentation.scale
        size = augmentation.crop
        self._least = math.ceil(1 / low)
        # OpenCV pads more than four bands with one value only.
        mean = _cycled(IMAGE_MEAN, bands) if bands <= 4 else [sum(IMAGE_MEAN) / len(IMAGE_MEAN)]
        fill = [255 * value for value in mean]
        steps: list[Any] = [
            A.RandomScale(scale_limit=(low - 1, high - 1), interpolation=cv2.INTER_LINEAR, p=1.0),
            A.PadIfNeeded(
                size,
                size,
                position="random",
                border_mode=cv2.BORDER_CONSTANT,
                fill=fill if len(fill) > 1 else fill[0],
                fill_mask=IGNORE,
            ),
            A.RandomCrop(size, size),
            A.D4(p=1.0) if augmentation.dihedral else A.HorizontalFlip(p=0.5),
        ]
        if any(augmentation.jitter):
            brightness, contrast, saturation, hue = augmentation.jitter
            if bands == 3:
                steps.append(A.ColorJitter(brightness, contrast, saturation, hue, p=1.0))
            else:
                steps.append(A.RandomBrightnessContrast(brightness, contrast, brightness_by_max=False, p=1.0))
        self._compose = A.Compose(steps)

    def __call__(
        self, seed: int, image: NDArray[np.uint8], masks: Sequence[NDArray[np.uint8]] = ()
    ) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
        """Varies one tile.

        Args:
            seed: Determines all random choices.
            image: (H, W, bands) uint8.
            masks: (H, W) uint8 each, resized by nearest neighbour and padded with 255.

        Returns:
            The image (crop, crop, bands) and the masks (crop, crop), in the order given.
        """
        # An image that is one pixel high or wide must keep a pixel at the smallest scale factor.
        repeats = [-(-self._least // side) for side in image.shape[:2]]
        if max(repeats) > 1:
            rows, columns = repeats
            image, *masks = (p.repeat(rows, axis=0).repeat(columns, axis=1) for p in (image, *masks))
        # Not `set_random_seed`, by which all steps draw the same numbers: the scale would decide the crop.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        varied = self._compose(image=image, masks=list(masks)) if masks else self._compose(image=image)
        return varied["image"], list(varied.get("masks", []))
