"""Segmentation networks of segmentation-models-pytorch that take images of any size."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from ome import plugins
from ome.errors import UserError
from ome.networks.encoder import encoder_options, resolve_encoder
from ome.networks.features import pad_to_multiple
from ome.networks.transformers import AnyPatch, check_sizes, is_plain_transformer, patch_of, stride_of
from ome.networks.weights import load_encoder
from ome.plugins import find

SEGMENTERS: Final[dict[str, Callable[..., nn.Module]]] = {
    "deeplabv3plus": smp.DeepLabV3Plus,
    "dpt": smp.DPT,
    "fpn": smp.FPN,
    # As published: the whole encoder, dilated to stride 8. The library's default cuts it after three stages
    # and keeps the others as parameters without gradients, which distributed training refuses.
    "pspnet": partial(smp.PSPNet, encoder_depth=5, output_stride=8),
    "segformer": smp.Segformer,
    "unet": smp.Unet,
    "upernet": smp.UPerNet,
}
MULTIPLE: Final = 32
"""The deepest stride of any encoder; maps of all stages line up in images whose sides it divides."""


class Segmenter(nn.Module):
    """A segmentation network for images of any size.

    Args:
        network: Takes images with height and width divisible by 32, gives logits of the same size.
        description: The arguments of `build_segmenter` but for the weights, where that built it.
    """

    def __init__(self, network: nn.Module, description: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.network = network
        self.description = description

    @property
    def encoder(self) -> nn.Module:
        """The part that pretrained weights belong to."""
        return self.network.get_submodule("encoder")

    def forward(self, image: Tensor) -> Tensor:
        """Computes class logits.

        Args:
            image: Normalised images (B, bands, H, W), float.

        Returns:
            Logits (B, C, H, W).
        """
        height, width = image.shape[2:]
        logits: Tensor = self.network(pad_to_multiple(image, MULTIPLE))
        return logits[:, :, :height, :width]

    @property
    def third_stage_channels(self) -> int:
        """Width of the last but one of the encoder's feature maps: the third stage of four."""
        channels: int = self.encoder.out_channels[-2]  # type: ignore[index, assignment]
        return channels

    def with_auxiliary(self, image: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
        """Computes class logits, and those of a second head on the encoder's third stage.

        Args:
            image: Normalised images (B, bands, H, W), float.
            head: Features (B, `third_stage_channels`, h, w) to logits (B, C, h, w).

        Returns:
            Both logits (B, C, H, W); the second head's are upsampled bilinearly.
        """
        stages: list[Tensor] = []

        def keep(
            _module: nn.Module, _input: object, maps: list[Tensor] | tuple[list[Tensor], object]
        ) -> None:
            # A plain transformer gives its maps and its other tokens.
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
        name: One of `SEGMENTERS`, or a plug-in's (see `ome.plugins`): a class that takes the arguments of
            those of segmentation-models-pytorch, and whose networks have an `encoder`.
        encoder: A segmentation-models-pytorch encoder or a timm model, with or without `tu-`.
        num_classes: Number of classes C.
        weights: The encoder's: None for random weights, a local file, or the name of published weights.
        in_channels: Bands of the input image.

    Raises:
        UserError: The network does not exist, encoder or weights, or they do not fit together.
    """
    kind = find(name, SEGMENTERS, plugins.SEGMENTERS, "segmenter")
    if encoder == "resnet38d":
        raise UserError(
            "resnet38d serves the classifier only; give the segmenter another: segmenter.encoder=resnet50"
        )
    resolved = resolve_encoder(encoder)
    options: dict[str, Any] = dict(encoder_options(encoder))
    if name in SEGMENTERS and _fits(name, encoder):
        options = {"dynamic_img_size": True, "num_classes": 0}
    try:
        network = kind(
            encoder_name=resolved,
            encoder_weights=None,
            in_channels=in_channels,
            classes=num_classes,
            **options,
        )
        if name == "dpt":
            network = _of_transformer(network)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError) as error:
        line = str(error).partition("\n")[0]
        raise UserError(
            f"segmenter {name!r} cannot use encoder {encoder!r}: {line}; take another, such as resnet50 or "
            "convnext_tiny"
        ) from error
    if options:
        check_sizes(network, in_channels, f"segmenter {name!r} cannot use encoder {encoder!r}")
    sizes = {"num_classes": num_classes, "in_channels": in_channels}
    segmenter = Segmenter(network, {"name": name, "encoder": encoder, **sizes})
    if weights is not None:
        load_encoder(segmenter.encoder, encoder, weights)
    return segmenter


def _fits(name: str, encoder: str) -> bool:
    """Whether both are for plain transformers.

    Raises:
        UserError: One of them is, and the other is not.
    """
    plain = is_plain_transformer(encoder)
    if plain and name != "dpt":
        raise UserError(
            f"segmenter {name!r} needs maps of several strides, and encoder {encoder!r} has one: type "
            "segmenter=dpt, or another segmenter.encoder=..."
        )
    if name == "dpt" and not plain:
        raise UserError(
            f"segmenter 'dpt' takes plain transformers of timm, not {encoder!r}: type "
            "segmenter.encoder=vit_small_patch14_dinov2, or segmenter=upernet for maps of several strides"
        )
    return plain


def _of_transformer(network: nn.Module) -> nn.Module:
    """Leaves out what no map depends on, and lets each patch stand for a power of two of pixels."""
    # Parameters without gradients would stop distributed training.
    encoder: Any = network.get_submodule("encoder")
    encoder.model.prune_intermediate_layers(len(encoder.model.blocks), prune_norm=True, prune_head=True)
    stride = stride_of(patch_of(encoder.model))
    if stride != encoder.output_stride:
        # The decoder resizes by strides, and 14 pixels do not divide into halves.
        network.decoder = DPTDecoder(
            encoder_out_channels=encoder.out_channels,
            encoder_output_strides=[stride] * len(encoder.out_channels),
            encoder_has_prefix_tokens=encoder.has_prefix_tokens,
        )
    return AnyPatch(network)
