"""Tries networks of the user before the first stage starts: imports, builds and calls them once."""

from typing import Final

import torch
from omegaconf import DictConfig
from torch import Tensor

from ome.errors import UserError, first_line
from ome.inference.classifier import build_classifier
from ome.networks.segmenters import build_segmenter
from ome.plugins import import_object, name_of

CLASSES: Final = 2
LARGEST_SIDE: Final = 256
"""Side of the image that a network is tried with, pixels, if tiles are larger."""


def check_plugin(config: DictConfig, group: str, weights: str | None, bands: int) -> None:
    """Checks that the plug-in that is `backbone` or `segmenter` is such a network.

    Args:
        config: The settings.
        group: "backbone" or "segmenter".
        weights: Weights on this disk that it loads; None for random ones.
        bands: Number of bands of an image.

    Raises:
        UserError: It is not, or the weights do not fit.
    """
    node, side = config[group], min(config.dataset.tile.size, LARGEST_SIDE)
    try:
        if target := node.get("_target_"):
            import_object(target, f"{group}._target_")
        with torch.inference_mode():
            shape = tuple(_maps(config, group, weights, torch.zeros(1, bands, side, side)).shape)
        if shape != (1, CLASSES, side, side):
            raise ValueError(f"it returns {shape} for an image of {(1, bands, side, side)}")  # noqa: TRY301
    except UserError:
        raise
    except Exception as error:  # code of the user
        key = f"{group}._target_" if target else f"{group}.name"
        raise UserError(
            f"{key}={name_of(node)} is not a {group} ({first_line(error)}): see docs/extend.md"
        ) from error


def _maps(config: DictConfig, group: str, weights: str | None, image: Tensor) -> Tensor:
    """The maps that a network of the user computes of an image."""
    bands = image.shape[1]
    if group == "backbone":
        classifier = build_classifier(config.backbone, config.classifier, CLASSES, bands, weights)
        refined: Tensor = classifier.eval()(image).refined
        return refined
    segmenter = config.segmenter
    network = build_segmenter(name_of(segmenter), segmenter.encoder, CLASSES, weights, bands)
    network.encoder.parameters()  # which have a rate of their own
    logits: Tensor = network.eval()(image)
    return logits
