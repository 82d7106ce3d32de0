"""Plain vision transformers of timm (ViT, DINOv2, DINOv3, MAE) as the classifier's backbone."""

from typing import Final

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.errors import UserError
from ome.networks.encoder import DEEPEST_STRIDE, OTHERS, REFUSALS, TIMM_PREFIX, cut, resolve_encoder
from ome.networks.features import Backbone, Features, pad_to_multiple

_MODULES: Final = ("vision_transformer", "eva", "deit")
"""Of timm; their networks have one stride in all blocks and take images of many sizes."""

_EMBEDDING: Final = ("patch_embed", "pos_embed", "cls_token", "reg_token")


def is_plain_transformer(name: str) -> bool:
    """Whether an encoder has the same stride in all its blocks.

    Raises:
        UserError: There is no such encoder.
    """
    resolved = resolve_encoder(name)
    model = resolved.removeprefix(TIMM_PREFIX).split(".")[0]
    return resolved.startswith(TIMM_PREFIX) and timm.models.is_model_in_modules(model, _MODULES)


def make_transformer(name: str, in_channels: int) -> nn.Module:
    """Builds an untrained plain transformer for images of any size.

    Raises:
        UserError: timm cannot build it so.
    """
    model = resolve_encoder(name).removeprefix(TIMM_PREFIX)
    try:
        network: nn.Module = timm.create_model(
            model, pretrained=False, in_chans=in_channels, num_classes=0, dynamic_img_size=True
        )
    except REFUSALS as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"encoder {name!r} does not take images of any size ({line}); {OTHERS}") from error
    return network


def patch_of(network: nn.Module) -> int:
    """Side of a patch of a plain transformer, pixels."""
    return int(network.get_submodule("patch_embed").patch_size[0])  # type: ignore[index]


def stride_of(patch: int) -> int:
    """Pixels of the image that a patch stands for: the next power of two, such as 16 for 14."""
    return 1 << (patch - 1).bit_length()


def to_patches(image: Tensor, patch: int) -> Tensor:
    """Resizes an image so that each patch covers `stride_of(patch)` of its pixels.

    Args:
        image: Images (B, bands, H, W), H and W divisible by that stride.
        patch: Side of a patch, pixels.

    Returns:
        Images with sides that are multiples of the patch; the same object where the stride is the patch.
    """
    stride = stride_of(patch)
    if stride == patch:
        return image
    size = [side // stride * patch for side in image.shape[2:]]
    return F.interpolate(image, size, mode="bilinear", align_corners=False)


class TransformerBackbone(Backbone):
    """A plain transformer whose last block feeds the head, and the one at two thirds `Features.low`.

    An image is extended to a multiple of 32 pixels; patches of 14 pixels see it at 14 / 16 of its size, so
    that each stands for 16 pixels. Patch and position embedding count as `frozen` when pretrained.

    Args:
        name: Any name that `is_plain_transformer` says yes to.
        output_stride: That of its patches: 8, 16 or 32.
        in_channels: Bands of the input image.

    Raises:
        UserError: The patches have another stride, or timm cannot build it for images of any size.
    """

    def __init__(self, name: str, output_stride: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder = make_transformer(name, in_channels)
        self._patch = patch_of(self.encoder)
        stride = stride_of(self._patch)
        if output_stride != stride:
            raise UserError(
                f"backbone.output_stride={output_stride}: encoder {name!r} has patches of {self._patch} "
                f"pixels, each for {stride} pixels of the image; type backbone.output_stride={stride}"
            )
        self.name = name
        self.in_channels = in_channels
        self.output_stride = output_stride
        depth = len(self.encoder.get_submodule("blocks"))  # type: ignore[arg-type]
        self._blocks = [max(0, 2 * depth // 3 - 1), depth - 1]
        # Parameters that no map depends on would stop distributed training.
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
        low, final = (cut(stage, image, padded) for stage in stages)
        return Features(low, final, final)


class AnyPatch(nn.Module):
    """A segmentation network on a plain transformer, for images of sides divisible by 32.

    Args:
        network: Takes images with sides divisible by the patch; has an `encoder` with a timm `model`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._patch = patch_of(network.get_submodule("encoder.model"))

    @property
    def encoder(self) -> nn.Module:
        """The part that pretrained weights belong to."""
        return self.network.get_submodule("encoder")

    def get_submodule(self, target: str) -> nn.Module:
        """As `nn.Module`'s; `encoder` is that of the network."""
        return super().get_submodule(f"network.{target}" if target.startswith("encoder") else target)

    def forward(self, image: Tensor) -> Tensor:
        """Computes class logits (B, C, H, W) of images (B, bands, H, W)."""
        logits: Tensor = self.network(to_patches(image, self._patch))
        if logits.shape[2:] == image.shape[2:]:
            return logits
        size: list[int] = list(image.shape[2:])
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def check_sizes(network: nn.Module, in_channels: int, message: str) -> None:
    """Runs a small blank image through a network, in eval mode so that no statistic changes.

    Raises:
        UserError: It takes images of one size only.
    """
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, in_channels, 64, 64))
    except REFUSALS as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"{message} ({line}); {OTHERS}") from error
    network.train()
