"""Mean and deviation that weights were trained with, where they are not ImageNet's.

Images are normalised with ImageNet's, whatever the weights. Those that expect others are converted when they
are loaded: their first convolution takes over the difference, so that checkpoints and exports need not know.
"""

from typing import Final, cast

import timm
import torch
from timm.layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from ome.errors import UserError
from ome.networks.encoder import TIMM_PREFIX, resolve_encoder

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of red, green and blue in [0, 1]."""

IMAGENET: Final[Statistics] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def statistics_of(name: str, weights: str) -> Statistics:
    """What an encoder's weights were trained with, as timm has it; ImageNet's for other libraries' encoders.

    Args:
        name: Any name `resolve_encoder` takes.
        weights: A timm tag; otherwise that of the name, or else timm's default, is looked up.
    """
    resolved = resolve_encoder(name)
    if not resolved.startswith(TIMM_PREFIX):
        return IMAGENET
    model, _, own_tag = resolved.removeprefix(TIMM_PREFIX).partition(".")
    known = timm.list_pretrained(model)
    tagged = (f"{model}.{tag}" for tag in (weights, own_tag) if f"{model}.{tag}" in known)
    config = timm.get_pretrained_cfg(next(tagged, model))
    return IMAGENET if config is None else (tuple(config.mean), tuple(config.std))


def check_convertible(network: nn.Module, name: str, weights: str) -> None:
    """Refuses weights whose statistics a network cannot take over, see `converted`.

    Args:
        network: The encoder.
        name: Any name `resolve_encoder` takes.
        weights: See `statistics_of`.

    Raises:
        UserError: They are not ImageNet's, and the first convolution has no place for the difference.
    """
    trained = statistics_of(name, weights)
    if trained == IMAGENET:
        return
    first, following = _first_layers(network)
    standardised = isinstance(first, StdConv2d | StdConv2dSame | ScaledStdConv2d | ScaledStdConv2dSame)
    if first is None or standardised or (first.bias is None and following is None):
        raise UserError(
            f"weights={weights} of encoder {name!r} expect images of mean {trained[0]} and deviation "
            f"{trained[1]}, which its first layer cannot take over: take another encoder, such as resnet50 "
            "or convnext_tiny"
        )


def _first_layers(network: nn.Module) -> tuple[nn.Conv2d | None, nn.BatchNorm2d | None]:
    """The first convolution, and the BatchNorm that follows it, where there are such."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    first, following = (*layers, None, None)[:2]
    is_norm = isinstance(following, nn.BatchNorm2d) and following.running_mean is not None
    return (
        first if isinstance(first, nn.Conv2d) else None,
        cast("nn.BatchNorm2d", following) if is_norm else None,
    )


def converted(network: nn.Module, trained: Statistics) -> None:
    """Makes a network take images normalised with ImageNet's statistics, in place.

    Exact but for a frame of half a kernel, where a convolution extends the image by zeros.

    Args:
        network: One that `check_convertible` lets pass, for images of any number of bands.
        trained: What its weights expect; band i has those of i mod 3.
    """
    first, following = _first_layers(network)
    if trained == IMAGENET or first is None:
        return
    bands = torch.arange(first.in_channels) % 3
    (mean, std), (own_mean, own_std) = (
        [torch.tensor(values)[bands] for values in statistics] for statistics in (IMAGENET, trained)
    )
    with torch.no_grad():
        offset: Tensor = (first.weight.sum((2, 3)) * ((mean - own_mean) / own_std)).sum(1)
        first.weight.mul_((std / own_std)[:, None, None])
        if first.bias is not None:
            first.bias.add_(offset)
        elif following is not None and following.running_mean is not None:
            following.running_mean.sub_(offset)
