"""Pooling of class activation maps to the scores of their classes."""

import math

import torch
from torch import Tensor


def pool_maps(maps: Tensor, sharpness: float = 0.0) -> Tensor:
    """Log-mean-exp pooling: between the mean of a map and its maximum.

    From Pinheiro & Collobert, "From Image-level to Pixel-level Labeling with Convolutional Networks", CVPR
    2015, equation 3, where it is called LSE.

    Args:
        maps: Responses (..., H, W), float.
        sharpness: r in log(mean(exp(r x))) / r, at least 0. The larger, the more count the strongest cells;
            0 is the mean.

    Returns:
        (...), one score per map.
    """
    if sharpness == 0:
        return maps.mean(dim=(-2, -1))
    cells = maps.shape[-2] * maps.shape[-1]
    return (torch.logsumexp(sharpness * maps, dim=(-2, -1)) - math.log(cells)) / sharpness
