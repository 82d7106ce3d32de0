"""The interface of backbones."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Features(NamedTuple):
    """Feature maps of one image batch, each (B, channels, h, w) of its own width and grid.

    `low` and `middle` feed the pixel correlation module, `final` feeds the CAM head.
    """

    low: Tensor
    middle: Tensor
    final: Tensor


class Backbone(nn.Module):
    """A network that turns images into `Features`; the parent of every backbone.

    Attributes:
        name: What `build_backbone` calls it; None where that does not build it.
        channels: Widths of `Features.low`, `.middle` and `.final`.
        in_channels: Bands of the input image.
        output_stride: Input pixels a cell of `Features.final` spans, along one axis.
        frozen: Parameter-name prefixes that stay fixed when the backbone is pretrained.
        attends: Whether the stage of `Features.low` has self-attention over the whole image.
    """

    name: str | None = None
    channels: tuple[int, int, int]
    in_channels: int
    output_stride: int
    frozen: tuple[str, ...]
    attends: bool = False

    def forward(self, image: Tensor) -> Features:
        """Computes the features.

        Args:
            image: Normalised images (B, in_channels, H, W), float.

        Returns:
            The feature maps; `final` is (B, channels[2], ceil(H / output_stride), ceil(W / output_stride)).
        """
        raise NotImplementedError

    def features_and_queries(self, image: Tensor) -> tuple[Features, list[Tensor]]:
        """Computes the features, and what the stage of `Features.low` attends with; only where it `attends`.

        Args:
            image: Normalised images (B, in_channels, H, W), float.

        Returns:
            The features, and the queries of each attention block, (B, heads, d, h, w) on the grid of `low`.
        """
        raise NotImplementedError


def freeze_batchnorm(module: nn.Module) -> None:
    """Puts every BatchNorm below `module` in eval mode and stops its gradients.

    `module.train()` undoes the eval mode (not the gradients), so call this again after it.
    """
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
            child.eval()
            child.requires_grad_(False)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Extends images at the right and the bottom, repeating the edge, to a multiple in height and width.

    Args:
        image: Images (B, bands, H, W).
        multiple: What the new height and width are divisible by, in pixels.

    Returns:
        Images (B, bands, H', W'); the same object when nothing is to be added.
    """
    bottom, right = (-size % multiple for size in image.shape[2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def resize_maps(maps: Tensor, size: Iterable[int]) -> Tensor:
    """Brings maps (B, channels, h, w) to a (height, width), bilinearly with align_corners as SEAM does."""
    target = list(size)
    if list(maps.shape[2:]) == target:
        return maps
    return F.interpolate(maps, target, mode="bilinear", align_corners=True)
