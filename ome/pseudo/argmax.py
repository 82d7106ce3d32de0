"""The strongest class at each pixel of class maps; an optional background map, and pixels without data."""

import numpy as np
from numpy.typing import NDArray

from ome.crf.simplices import Float
from ome.ignore import IGNORE


def strongest(maps: Float) -> NDArray[np.uint8]:
    """Index of the largest map at each pixel.

    Maps that are 0 everywhere (classes that the tags exclude) win no pixel, even if all others are 0 there.

    Args:
        maps: (C, H, W), not negative, C up to 255.

    Returns:
        (H, W) uint8; the lowest index of equal values, and 0 where all maps are 0 everywhere.
    """
    responding = np.flatnonzero(maps.any(axis=(1, 2))).astype(np.uint8)
    if len(responding) == 0:
        return np.zeros(maps.shape[1:], dtype=np.uint8)
    winners: NDArray[np.uint8] = responding[maps[responding].argmax(0)]
    return winners


def decided(maps: Float, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels that class maps say something about.

    Args:
        maps: (C, H, W), not negative.
        valid: (H, W) bool, false for pixels without data.

    Returns:
        (H, W) bool: `valid`; false everywhere if several maps are the largest at each of these pixels, as
        where no tagged class responds (`replace_zero_cams`).
    """
    tied = (maps == maps.max(axis=0)).sum(axis=0) > 1
    return valid & (not tied[valid].all())


def with_background(cam: Float, power: float | None) -> Float:
    """Appends a background map to a CAM.

    Args:
        cam: (C, H, W) float32 in [0, 1].
        power: Alpha of AffinityNet (Ahn and Kwak, CVPR 2018, equation 2): the larger, the less background.

    Returns:
        (C + 1, H, W) float32, the last map being (1 - maximum of the CAM over classes) ** power; the CAM
        itself if `power` is None.
    """
    if power is None:
        return cam
    # A normalised CAM may exceed 1 by rounding.
    background = np.maximum(1.0 - cam.max(axis=0, keepdims=True), 0.0) ** np.float32(power)
    return np.concatenate([cam, background])


def uniform_without_data(maps: Float, valid: NDArray[np.bool_]) -> Float:
    """Makes the maps equal at pixels without data, which say nothing about their class to the CRF.

    They are 1 there, as 1 stays 1 in every power of response scaling and of the background.

    Args:
        maps: (C, H, W) float32, all that the CRF refines, a background map included.
        valid: (H, W) bool, false for pixels without data.

    Returns:
        The maps; at pixels without data 1 for the maps that respond at any other pixel, and 0 for the rest,
        among them those of classes that the tags exclude.
    """
    if valid.all():
        return maps
    responding: NDArray[np.bool_] = np.asarray(maps[:, valid].any(axis=1))
    return np.where(valid, maps, responding[:, None, None].astype(maps.dtype))


def ignore_background(argmax: NDArray[np.uint8], num_classes: int) -> NDArray[np.uint8]:
    """Replaces the index of the background map, C, by 255, which is not a class."""
    return np.where(argmax < num_classes, argmax, np.uint8(IGNORE))


def ignore_first_map(argmax: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Treats the first map as the background, although it is the last: an error of the published code.

    Args:
        argmax: (H, W) indices of C + 1 maps, the last of which is the background.

    Returns:
        (H, W) uint8: 255 for index 0, and all other indices lowered by 1.
    """
    return np.where(argmax == 0, np.uint8(IGNORE), argmax - np.uint8(1))
