"""The interface of backbones."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Features(NamedTuple):
    """Three feature maps of a batch of images, each (B, channels, h, w) with different channels, h and w.

    `low` and `middle` feed the pixel correlation module, `final` feeds the CAM head.
    """

    low: Tensor
    middle: Tensor
    final: Tensor


class Backbone(nn.Module):
    """Base class of backbones: networks that compute `Features` of images.

    Attributes:
        name: Its name in `build_backbone`; None if that function cannot build it.
        channels: Channels of `Features.low`, `.middle` and `.final`.
        in_channels: Bands of the input image.
        output_stride: Side of a cell of `Features.final` in input pixels.
        frozen: Name prefixes of the parameters that are not trained when the backbone is pretrained.
        attends: Whether the stage of `Features.low` has self-attention over the whole image.
        only_low: Names of the parameters on which `Features.low` depends, but not the other two.
    """

    name: str | None = None
    channels: tuple[int, int, int]
    in_channels: int
    output_stride: int
    frozen: tuple[str, ...]
    attends: bool = False
    only_low: tuple[str, ...] = ()

    def forward(self, image: Tensor) -> Features:
        """Computes the features of normalised images (B, in_channels, H, W), float.

        `final` is (B, channels[2], ceil(H / output_stride), ceil(W / output_stride)).
        """
        raise NotImplementedError

    def features_and_queries(self, image: Tensor) -> tuple[Features, list[Tensor]]:
        """Computes the features, and the attention queries of the stage of `Features.low`, if it `attends`.

        The queries of each attention block are (B, heads, d, h, w) on the grid of `low`.
        """
        raise NotImplementedError


def freeze_batchnorm(module: nn.Module) -> None:
    """Puts every BatchNorm below `module` in eval mode and stops its gradients.

    Call it again after `module.train()`, which ends the eval mode.
    """
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
            child.eval()
            child.requires_grad_(False)


def reached(module: nn.Module, *outputs: Tensor) -> tuple[str, ...]:
    """Names of the trainable parameters on which outputs depend that were computed with gradients."""
    nodes, seen = [output.grad_fn for output in outputs], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    found = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return tuple(name for name, parameter in module.named_parameters() if id(parameter) in found)


def train_only(module: nn.Module, names: Collection[str]) -> None:
    """Stops the gradients of all other parameters: DDP would wait forever for those without effect.

    They keep their place in the state dict, which published weights fill.
    """
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pads images (B, bands, H, W) at the right and the bottom by repeating the edge, if needed.

    Height and width of the result are the next multiples of `multiple` pixels.
    """
    bottom, right = (-size % multiple for size in image.shape[2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def resize_maps(maps: Tensor, size: Iterable[int]) -> Tensor:
    """Resizes maps (B, channels, h, w) to (height, width), bilinearly with align_corners as SEAM does."""
    target = list(size)
    if list(maps.shape[2:]) == target:
        return maps
    return F.interpolate(maps, target, mode="bilinear", align_corners=True)
