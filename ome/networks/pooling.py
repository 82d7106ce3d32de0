"""Pooling of class activation maps to the scores of their classes."""

from typing import Final, Literal

from torch import Tensor

Pooling = Literal["mean", "competing"]

FLOOR: Final = 0.1
"""Weight of a cell whose class has no probability, so that the maps of absent classes learn everywhere."""


def pool_maps(maps: Tensor, pooling: Pooling = "mean") -> Tensor:
    """Pools each map to the score of its class.

    With the mean, a class has to respond everywhere in a tile that shows it, also where it is not. Weighted
    by the softmax over the classes, a class is scored where it wins: after nGWP (Araslanov & Roth,
    "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020), with a floor of the weights instead
    of a background class.

    Args:
        maps: Responses of all classes (..., C, H, W), float.
        pooling: "mean", or "competing" for the mean weighted by the softmax over C, plus `FLOOR`.

    Returns:
        (..., C), one score per class.
    """
    if pooling == "mean":
        return maps.mean(dim=(-2, -1))
    weights = maps.softmax(dim=-3) + FLOOR
    return (weights * maps).sum(dim=(-2, -1)) / weights.sum(dim=(-2, -1))
