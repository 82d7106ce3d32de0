"""Tries networks of the user before the first stage starts: imports, builds and calls them once."""

from collections.abc import Iterator
from typing import Final

import torch
from omegaconf import DictConfig
from torch import Tensor

from ome.errors import UserError, first_line
from ome.inference.classifier import build_classifier
from ome.networks.segmenters import build_segmenter
from ome.plugins import imported, name_of

CLASSES: Final = 2
LARGEST_SIDE: Final = 256
"""Side of the image that a network is tried with, pixels, if tiles are larger."""


def plugin_faults(config: DictConfig, group: str, bands: int) -> Iterator[str]:
    """Yields an error line if the plug-in that is `backbone` or `segmenter` is not such a network."""
    node, side = config[group], min(config.dataset.tile.size, LARGEST_SIDE)
    try:
        if target := node.get("_target_"):
            imported(target, f"{group}._target_")
        with torch.inference_mode():
            shape = tuple(_maps(config, group, torch.zeros(1, bands, side, side)).shape)
        if shape != (1, CLASSES, side, side):
            raise ValueError(f"it returns {shape} for an image of {(1, bands, side, side)}")  # noqa: TRY301
    except UserError as error:
        yield str(error)
    except Exception as error:  # noqa: BLE001 - code of the user
        key = f"{group}._target_" if target else f"{group}.name"
        yield f"{key}={name_of(node)} is not a {group} ({first_line(error)}): see docs/extend.md"


def _maps(config: DictConfig, group: str, image: Tensor) -> Tensor:
    """The maps that a network of the user computes of an image."""
    bands = image.shape[1]
    if group == "backbone":
        classifier = build_classifier(config.backbone, config.classifier, CLASSES, bands, None)
        refined: Tensor = classifier.eval()(image).refined
        return refined
    segmenter = config.segmenter
    network = build_segmenter(name_of(segmenter), segmenter.encoder, CLASSES, None, bands)
    network.encoder.parameters()  # which have a rate of their own
    logits: Tensor = network.eval()(image)
    return logits
