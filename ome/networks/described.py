"""Descriptions of networks as plain values, so that a checkpoint can rebuild its network."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ome.networks.affinity import AffinityNetwork
from ome.networks.backbone_network import BackboneNetwork
from ome.networks.backbones import build_backbone
from ome.networks.features import Backbone
from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import Segmenter, build_segmenter


def describe_classifier(network: nn.Module) -> dict[str, Any] | None:
    """The description from which `classifier_from` builds the same network; None if it cannot."""
    if not isinstance(network, SeamNetwork) or (backbone := _describe_backbone(network)) is None:
        return None
    return backbone | {
        "num_classes": network.fc8.out_channels,
        "pcm": network.pcm,
        "attention": network.attention,
        "zoom": network.zoom,
    }


def classifier_from(description: Mapping[str, Any], weights: str | None = None) -> SeamNetwork:
    """Builds a classifier from its description, with random weights or those of a pretrained backbone."""
    network = SeamNetwork(
        _backbone_from(description, weights),
        description["num_classes"],
        pcm=description["pcm"],
        attention=description["attention"],
        zoom=description.get("zoom", 1.0),  # older checkpoints do not have it
    )
    return network.freeze() if description["frozen"] else network


def describe_affinity(network: nn.Module) -> dict[str, Any] | None:
    """The description from which `affinity_from` builds the same network; None if it cannot."""
    return _describe_backbone(network) if isinstance(network, AffinityNetwork) else None


def affinity_from(description: Mapping[str, Any]) -> AffinityNetwork:
    """Builds an AffinityNet from its description, with random weights."""
    network = AffinityNetwork(_backbone_from(description))
    return network.freeze() if description["frozen"] else network


def _describe_backbone(network: BackboneNetwork) -> dict[str, Any] | None:
    """The backbone and whether it is frozen; None if `build_backbone` did not build it."""
    backbone = network.backbone
    if backbone.name is None:
        return None
    return {
        "backbone": backbone.name,
        "output_stride": backbone.output_stride,
        "in_channels": backbone.in_channels,
        "frozen": network.is_frozen,
    }


def _backbone_from(description: Mapping[str, Any], weights: str | None = None) -> Backbone:
    return build_backbone(
        description["backbone"], weights, description["output_stride"], description["in_channels"]
    )


def describe_segmenter(network: nn.Module) -> dict[str, Any] | None:
    """The arguments with which `build_segmenter` builds the same network; None if it did not build it."""
    return network.description if isinstance(network, Segmenter) else None


def segmenter_from(description: Mapping[str, Any]) -> Segmenter:
    """Builds a segmenter from its description, with random weights."""
    return build_segmenter(**description)
