"""Weights that were trained with another mean and standard deviation of the images than ImageNet's.

Images are always normalised with ImageNet's statistics. Weights that expect others are adapted when they are
loaded: the difference is folded into the first convolution, so that checkpoints and exports do not depend on
it.
"""

import logging
from typing import Final, cast

import timm
import torch
from timm.layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from ome.errors import UserError, few
from ome.networks.encoder import TIMM_PREFIX, resolve_encoder

logger = logging.getLogger(__name__)

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of red, green and blue in [0, 1]."""

IMAGENET: Final[Statistics] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def statistics_of(name: str, weights: str) -> Statistics:
    """The statistics that an encoder's weights expect, according to timm; ImageNet's for other libraries.

    Args:
        name: Any name `resolve_encoder` accepts.
        weights: A timm tag; if it is not one, the tag in the name is used, or else timm's default.
    """
    resolved = resolve_encoder(name)
    if not resolved.startswith(TIMM_PREFIX):
        return IMAGENET
    model, _, named_tag = resolved.removeprefix(TIMM_PREFIX).partition(".")
    known = timm.list_pretrained(model)
    tagged = (f"{model}.{tag}" for tag in (weights, named_tag) if f"{model}.{tag}" in known)
    config = timm.get_pretrained_cfg(next(tagged, model))
    return IMAGENET if config is None else (tuple(config.mean), tuple(config.std))


def say_assumed_statistics(name: str, file: str) -> None:
    """Says what a file of weights is taken for, if timm has weights of this network with other statistics.

    Such as `vit_base_patch16_224`, by default of mean 0.5, whose weights of MAE expect ImageNet's.
    """
    model, _, tag = resolve_encoder(name).removeprefix(TIMM_PREFIX).partition(".")
    assumed = statistics_of(name, file)
    if tag or assumed == IMAGENET:
        return
    others = [one for one in timm.list_pretrained(f"{model}.*") if statistics_of(one, "") == IMAGENET]
    if others:
        logger.warning(
            "%s is taken for weights of images with mean %s; is it ImageNet's? then name the tag: %s",
            file,
            assumed[0],
            few(others, 9),
        )


def check_convertible(network: nn.Module, name: str, weights: str) -> None:
    """Checks that `adapt_to_imagenet` can adapt an encoder to weights, if it has to; see `statistics_of`.

    Raises:
        UserError: The weights expect other statistics than ImageNet's, and the first convolution is
            standardised, or neither it nor a BatchNorm after it has a bias.
    """
    required = statistics_of(name, weights)
    if required == IMAGENET:
        return
    first, following = _first_layers(network)
    standardised = isinstance(first, StdConv2d | StdConv2dSame | ScaledStdConv2d | ScaledStdConv2dSame)
    if first is None or standardised or (first.bias is None and following is None):
        raise UserError(
            f"weights={weights} of encoder {name!r} expect images of mean {required[0]} and standard "
            f"deviation {required[1]}, to which its first layer cannot be adapted: use another encoder, such "
            "as resnet50 or convnext_tiny"
        )


def _first_layers(network: nn.Module) -> tuple[nn.Conv2d | None, nn.BatchNorm2d | None]:
    """The first convolution and the BatchNorm right after it; None for each that a network does not have."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    first, following = (*layers, None, None)[:2]
    is_norm = isinstance(following, nn.BatchNorm2d) and following.running_mean is not None
    return (
        first if isinstance(first, nn.Conv2d) else None,
        cast("nn.BatchNorm2d", following) if is_norm else None,
    )


def adapt_to_imagenet(network: nn.Module, required: Statistics) -> None:
    """Adapts a network in place to images normalised with ImageNet's statistics.

    The result is exact except within half a kernel of the image border, where convolutions pad with zeros.

    Args:
        network: A network that passed `check_convertible`, for images of any number of bands.
        required: The statistics that its weights expect; band i has those of colour i mod 3.
    """
    first, following = _first_layers(network)
    if required == IMAGENET or first is None:
        return
    bands = torch.arange(first.in_channels) % 3
    (mean, std), (required_mean, required_std) = (
        [torch.tensor(values)[bands] for values in statistics] for statistics in (IMAGENET, required)
    )
    with torch.no_grad():
        offset: Tensor = (first.weight.sum((2, 3)) * ((mean - required_mean) / required_std)).sum(1)
        first.weight.mul_((std / required_std)[:, None, None])
        if first.bias is not None:
            first.bias.add_(offset)
        elif following is not None and following.running_mean is not None:
            following.running_mean.sub_(offset)
