"""Plain vision transformers of timm (ViT, DINOv2, DINOv3, MAE) as the classifier's backbone."""

from typing import Final

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.errors import UserError, first_line
from ome.networks.encoder import (
    ALTERNATIVES,
    DEEPEST_STRIDE,
    TIMM_PREFIX,
    UNSUPPORTED_ERRORS,
    crop_padding,
    resolve_encoder,
)
from ome.networks.features import Backbone, Features, pad_to_multiple

_MODULES: Final = ("vision_transformer", "eva", "deit")
"""Modules of timm whose networks have one stride in all blocks and take images of many sizes."""

_EMBEDDING: Final = ("patch_embed", "pos_embed", "cls_token", "reg_token")
"""Name prefixes of the parameters before the first block."""


def is_plain_transformer(name: str) -> bool:
    """Whether an encoder has the same stride in all its blocks.

    Raises:
        UserError: The encoder is unknown.
    """
    resolved = resolve_encoder(name)
    model = resolved.removeprefix(TIMM_PREFIX).split(".")[0]
    return resolved.startswith(TIMM_PREFIX) and timm.models.is_model_in_modules(model, _MODULES)


def _make_transformer(name: str, in_channels: int) -> nn.Module:
    """Builds a plain transformer for images of any size, with random weights; see `TransformerBackbone`."""
    model = resolve_encoder(name).removeprefix(TIMM_PREFIX)
    try:
        network: nn.Module = timm.create_model(
            model, pretrained=False, in_chans=in_channels, num_classes=0, dynamic_img_size=True
        )
    except UNSUPPORTED_ERRORS as error:
        raise UserError(
            f"encoder {name!r} does not take images of any size ({first_line(error)}); {ALTERNATIVES}"
        ) from error
    return network


def patch_of(network: nn.Module) -> int:
    """Side of a plain transformer's patches in pixels."""
    return int(network.get_submodule("patch_embed").patch_size[0])  # type: ignore[index]


def stride_of(patch: int) -> int:
    """Side of the image region that a patch represents: the next power of two, such as 16 pixels for 14."""
    return 1 << (patch - 1).bit_length()


def to_patches(image: Tensor, patch: int) -> Tensor:
    """Resizes images so that each patch covers `stride_of(patch)` pixels of the original in each direction.

    Args:
        image: Images (B, bands, H, W), H and W divisible by that stride.
        patch: Side of a patch in pixels; if it is a power of two, the images stay as they are.
    """
    stride = stride_of(patch)
    if stride == patch:
        return image
    size = [side // stride * patch for side in image.shape[2:]]
    return F.interpolate(image, size, mode="bilinear", align_corners=False)


class TransformerBackbone(Backbone):
    """A plain transformer as a backbone.

    `Features.middle` and `.final` are the output of the last block, `.low` that of the block at two thirds of
    the depth. An image is padded to a multiple of 32 pixels; for patches of 14 pixels it is then resized by
    14 / 16, so that each patch represents 16 pixels. Patch and position embedding are `frozen` when
    pretrained.

    Args:
        name: An encoder for which `is_plain_transformer` is true.
        output_stride: Stride of the patches: 8, 16 or 32.
        in_channels: Bands of the input image.

    Raises:
        UserError: The patches have another stride, or timm cannot build the encoder for images of any size.
    """

    def __init__(self, name: str, output_stride: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder = _make_transformer(name, in_channels)
        self._patch = patch_of(self.encoder)
        stride = stride_of(self._patch)
        if output_stride != stride:
            raise UserError(
                f"backbone.output_stride={output_stride}: encoder {name!r} has patches of {self._patch} "
                f"pixels and gives a value for every {stride} pixels of the image; type "
                f"backbone.output_stride={stride}"
            )
        self.name = name
        self.in_channels = in_channels
        self.output_stride = output_stride
        depth = len(self.encoder.get_submodule("blocks"))  # type: ignore[arg-type]
        self._blocks = [max(0, 2 * depth // 3 - 1), depth - 1]
        # Distributed training fails if a parameter has no gradient.
        self.encoder.prune_intermediate_layers(self._blocks, prune_norm=False, prune_head=True)  # type: ignore[operator]
        width = int(self.encoder.num_features)  # type: ignore[arg-type]
        self.channels = (width, width, width)
        names = [name for name, _ in self.named_parameters()]
        self.frozen = tuple(n for n in names if n.removeprefix("encoder.").startswith(_EMBEDDING))

    def forward(self, image: Tensor) -> Features:
        """Computes the features; see `Backbone.forward`."""
        padded = pad_to_multiple(image, DEEPEST_STRIDE)
        stages: list[Tensor] = self.encoder.forward_intermediates(  # type: ignore[operator]
            to_patches(padded, self._patch), indices=self._blocks, norm=True, intermediates_only=True
        )
        low, final = (crop_padding(stage, image, padded) for stage in stages)
        return Features(low, final, final)


class AnyPatch(nn.Module):
    """A segmentation network on a plain transformer, for images with height and width divisible by 32.

    Args:
        network: Takes images with height and width divisible by the patch; it has an `encoder` with a timm
            `model`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._patch = patch_of(network.get_submodule("encoder.model"))

    def get_submodule(self, target: str) -> nn.Module:
        """As in `nn.Module`; a target that starts with `encoder` is looked up in the network."""
        return super().get_submodule(f"network.{target}" if target.startswith("encoder") else target)

    def forward(self, image: Tensor) -> Tensor:
        """Computes class logits (B, C, H, W) of images (B, bands, H, W)."""
        logits: Tensor = self.network(to_patches(image, self._patch))
        if logits.shape[2:] == image.shape[2:]:
            return logits
        size: list[int] = list(image.shape[2:])
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def check_sizes(network: nn.Module, in_channels: int, message: str) -> None:
    """Runs a small blank image through a network, in eval mode so that BatchNorm statistics do not change.

    Raises:
        UserError: The network takes images of one size only; the line begins with `message`.
    """
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, in_channels, 64, 64))
    except UNSUPPORTED_ERRORS as error:
        raise UserError(f"{message} ({first_line(error)}); {ALTERNATIVES}") from error
    network.train()
