"""Builds networks from their descriptions in checkpoints, see `BackboneNetwork.description`."""

from collections.abc import Mapping
from typing import Any

from ome.networks.affinity import AffinityNetwork
from ome.networks.backbones import build_backbone
from ome.networks.features import Backbone
from ome.networks.seam import SeamNetwork


def classifier_from(description: Mapping[str, Any], weights: str | None = None) -> SeamNetwork:
    """Builds a classifier from its description, with random weights or those of a pretrained backbone."""
    network = SeamNetwork(
        _backbone_from(description, weights),
        description["num_classes"],
        pcm=description["pcm"],
        attention=description["attention"],
        zoom=description["zoom"],
        pooling=description["pooling"],
    )
    return network.freeze() if description["frozen"] else network


def affinity_from(description: Mapping[str, Any]) -> AffinityNetwork:
    """Builds an AffinityNet from its description, with random weights."""
    network = AffinityNetwork(_backbone_from(description))
    return network.freeze() if description["frozen"] else network


def _backbone_from(description: Mapping[str, Any], weights: str | None = None) -> Backbone:
    return build_backbone(
        description["backbone"], weights, description["output_stride"], description["in_channels"]
    )
