"""Builds any backbone: ResNet38d, or an encoder of segmentation-models-pytorch or timm."""

from ome.errors import UserError
from ome.networks.encoder import EncoderBackbone
from ome.networks.features import Backbone
from ome.networks.hub import check_published
from ome.networks.resnet38d import ResNet38d
from ome.networks.transformers import TransformerBackbone, is_plain_transformer
from ome.networks.weights import load_encoder, load_weights, looks_like_file
from ome.plugins import BACKBONE_PLUGINS, find, is_plugin


def build_backbone(
    name: str, weights: str | None = None, output_stride: int = 8, in_channels: int = 3
) -> Backbone:
    """Builds a backbone for the classifier.

    Args:
        name: "resnet38d", a segmentation-models-pytorch encoder ("resnet50", "mobilenet_v2"), a timm model
            ("resnet50d", "tu-resnet50d"), or a plug-in (see `ome.plugins`): a `Backbone` that takes
            `in_channels` and `output_stride`.
        weights: None for random weights, a local file, or the name of published weights ("imagenet").
        output_stride: Side of a cell of the last feature map in input pixels: 8, 16 or 32; for ResNet38d 8.
        in_channels: Bands of the input image. Weights for three bands are adapted to any other number.

    Raises:
        UserError: Name, stride or weights do not exist, or do not fit together.
    """
    if is_plugin(name, BACKBONE_PLUGINS):
        plugin: Backbone = find(name, {}, BACKBONE_PLUGINS, "backbone")(
            in_channels=in_channels, output_stride=output_stride
        )
        plugin.name = name  # for the description in checkpoints
        if weights is not None:
            load_weights(plugin, weights)
        return plugin
    if name != "resnet38d":
        kind = TransformerBackbone if is_plain_transformer(name) else EncoderBackbone
        backbone = kind(name, output_stride, in_channels)
        if weights is not None:
            load_encoder(backbone.encoder, name, weights)
        return backbone
    if output_stride != ResNet38d.output_stride:
        raise UserError(
            f"backbone.output_stride={output_stride}: resnet38d has {ResNet38d.output_stride}; "
            f"type backbone.output_stride={ResNet38d.output_stride}, or choose another backbone"
        )
    resnet38d = ResNet38d(in_channels)
    if weights is not None:
        if not looks_like_file(weights):
            check_published(name, weights)
        load_weights(resnet38d, weights)
    return resnet38d
