"""Segmentation networks of segmentation-models-pytorch that take images of any size."""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from ome.errors import UserError, first_line
from ome.networks.encoder import UNSUPPORTED_ERRORS, encoder_options, resolve_encoder
from ome.networks.features import pad_to_multiple, reached, train_only
from ome.networks.transformers import AnyPatch, check_sizes, is_plain_transformer, patch_of, stride_of
from ome.networks.weights import load_encoder
from ome.plugins import BACKBONE_PLUGINS, SEGMENTER_PLUGINS, find, is_plugin

SEGMENTERS: Final[dict[str, Callable[..., nn.Module]]] = {
    "deeplabv3plus": smp.DeepLabV3Plus,
    "dpt": smp.DPT,
    "fpn": smp.FPN,
    # As published: the whole encoder, dilated to stride 8. By default, the library uses only three stages and
    # keeps the others as parameters without gradients, with which distributed training fails.
    "pspnet": partial(smp.PSPNet, encoder_depth=5, output_stride=8),
    "segformer": smp.Segformer,
    "unet": smp.Unet,
    "upernet": smp.UPerNet,
}
MULTIPLE: Final = 32
"""The deepest stride of any encoder; it must divide height and width for the maps of all stages to align."""


class Segmenter(nn.Module):
    """A segmentation network for images of any size.

    Args:
        network: Takes images with height and width divisible by 32 and returns logits of the same size.
        description: The arguments of `build_segmenter` except the weights; None if it did not build it.
    """

    def __init__(self, network: nn.Module, description: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.network = network
        self.description = description

    @property
    def encoder(self) -> nn.Module:
        """The part that can have pretrained weights."""
        return self.network.get_submodule("encoder")

    def forward(self, image: Tensor) -> Tensor:
        """Computes class logits (B, C, H, W) of normalised images (B, bands, H, W), float."""
        height, width = image.shape[2:]
        logits: Tensor = self.network(pad_to_multiple(image, MULTIPLE))
        return logits[:, :, :height, :width]

    @property
    def third_stage_channels(self) -> int:
        """Channels of the encoder's last but one feature map: the third stage of four."""
        channels: int = self.encoder.out_channels[-2]  # type: ignore[index, assignment]
        return channels

    def with_auxiliary(self, image: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
        """Computes class logits, and those of a head on the encoder's third stage, upsampled bilinearly.

        Args:
            image: Normalised images (B, bands, H, W), float.
            head: Computes logits (B, C, h, w) of features (B, `third_stage_channels`, h, w).

        Returns:
            Logits of the network and of the head, each (B, C, H, W).
        """
        stages: list[Tensor] = []

        def keep(
            _module: nn.Module, _input: object, maps: list[Tensor] | tuple[list[Tensor], object]
        ) -> None:
            # A plain transformer returns its maps and its other tokens.
            stages.append(maps[0][-2] if isinstance(maps, tuple) else maps[-2])

        hook = self.encoder.register_forward_hook(keep)
        try:
            logits = self(image)
        finally:
            hook.remove()
        height, width = image.shape[2:]
        padded = [size + -size % MULTIPLE for size in (height, width)]
        auxiliary = F.interpolate(head(stages[0]), padded, mode="bilinear", align_corners=False)
        return logits, auxiliary[:, :, :height, :width]


def build_segmenter(
    name: str, encoder: str, num_classes: int, weights: str | None = None, in_channels: int = 3
) -> Segmenter:
    """Builds a segmentation network.

    Args:
        name: One of `SEGMENTERS`, or a plug-in (see `ome.plugins`): a class that takes the arguments of the
            classes of segmentation-models-pytorch, and whose networks have an `encoder`.
        encoder: A segmentation-models-pytorch encoder or a timm model, with or without `tu-`.
        num_classes: Number of classes C.
        weights: Weights of the encoder: None for random ones, a local file, or the name of published ones.
        in_channels: Bands of the input image.

    Raises:
        UserError: Network, encoder or weights do not exist, or do not fit together.
    """
    kind = find(name, SEGMENTERS, SEGMENTER_PLUGINS, "segmenter")
    if encoder == "resnet38d" or is_plugin(encoder, BACKBONE_PLUGINS):
        raise UserError(
            f"{encoder} is for the classifier only; choose another encoder: segmenter.encoder=resnet50"
        )
    resolved = resolve_encoder(encoder)
    options: dict[str, Any] = dict(encoder_options(encoder))
    if name in SEGMENTERS and _uses_plain_transformer(name, encoder):
        options = {"dynamic_img_size": True, "num_classes": 0}
    try:
        sizes = {"in_channels": in_channels, "classes": num_classes}
        network = kind(encoder_name=resolved, encoder_weights=None, **sizes, **options)
        if name == "dpt":
            network = _adapt_to_patches(network)
    except UNSUPPORTED_ERRORS as error:
        if name not in SEGMENTERS:
            raise
        reason, other = first_line(error).rstrip(".!"), ""
        # Only some segmenters dilate their encoder.
        if not reason or re.search("output_stride|dilated", reason):
            reason, other = "it cannot be dilated", "type segmenter=fpn, which takes most encoders, or "
        raise UserError(
            f"segmenter {name!r} cannot use encoder {encoder!r}: {reason}; {other}use another, such as "
            "resnet50 or convnext_tiny"
        ) from error
    if options:
        check_sizes(network, in_channels, f"segmenter {name!r} cannot use encoder {encoder!r}")
    if name in SEGMENTERS:
        _leave_out_idle(network, name, encoder, in_channels=in_channels)
    description = {"name": name, "encoder": encoder, "num_classes": num_classes, "in_channels": in_channels}
    segmenter = Segmenter(network, description)
    if weights is not None:
        load_encoder(segmenter.encoder, encoder, weights)
    return segmenter


_used: Final[dict[tuple[str, ...], frozenset[str]]] = {}  # by segmenter, encoder and all parameters


def _leave_out_idle(network: nn.Module, *architecture: str, in_channels: int) -> None:
    """Runs a small blank image through a network to find the layers that it keeps but does not use."""
    key = (*architecture, *(name for name, _ in network.named_parameters()))
    if key not in _used:
        _used[key] = frozenset(key)
        network.eval()
        with suppress(*UNSUPPORTED_ERRORS), torch.enable_grad():  # of an encoder for images of one size
            _used[key] = frozenset(reached(network, network(torch.zeros(1, in_channels, 64, 64))))
        network.train()
    train_only(network, _used[key])


def _uses_plain_transformer(name: str, encoder: str) -> bool:
    """Whether the encoder is a plain transformer, and the segmenter is made for these.

    Raises:
        UserError: Only one of both is true.
    """
    plain = is_plain_transformer(encoder)
    if plain and name != "dpt":
        raise UserError(
            f"segmenter {name!r} needs maps of several strides, but encoder {encoder!r} has one: type "
            "segmenter=dpt, or another segmenter.encoder=..."
        )
    if name == "dpt" and not plain:
        raise UserError(
            f"segmenter 'dpt' takes plain transformers of timm, not {encoder!r}: type "
            "segmenter.encoder=vit_small_patch14_dinov2, or segmenter=upernet for maps of several strides"
        )
    return plain


def _adapt_to_patches(network: nn.Module) -> nn.Module:
    """Prunes layers that no map depends on, and lets each patch represent a power of two of pixels."""
    # Distributed training fails if a parameter has no gradient.
    encoder: Any = network.get_submodule("encoder")
    encoder.model.prune_intermediate_layers(len(encoder.model.blocks), prune_norm=True, prune_head=True)
    stride = stride_of(patch_of(encoder.model))
    if stride != encoder.output_stride:
        # The decoder resizes by powers of two, which 14 pixels are not.
        network.decoder = DPTDecoder(
            encoder_out_channels=encoder.out_channels,
            encoder_output_strides=[stride] * len(encoder.out_channels),
            encoder_has_prefix_tokens=encoder.has_prefix_tokens,
        )
    return AnyPatch(network)
