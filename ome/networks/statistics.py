"""Mean and deviation that weights were trained with, where they are not ImageNet's.

Images are normalised with ImageNet's, whatever the weights. Those that expect others are converted when they
are loaded: their first convolution takes over the difference, so that checkpoints and exports need not know.
"""

from typing import Final, cast

import timm
import torch
from torch import Tensor, nn

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


def converted(network: nn.Module, trained: Statistics) -> None:
    """Makes a network take images normalised with ImageNet's statistics, in place.

    Exact but for a frame of half a kernel, where a convolution extends the image by zeros.

    Args:
        network: Its first convolution is one of an image of any number of bands.
        trained: What its weights expect; band i has those of i mod 3.
    """
    if trained == IMAGENET:
        return
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    first, following = cast("nn.Conv2d", layers[0]), layers[1] if len(layers) > 1 else None
    bands = torch.arange(first.in_channels) % 3
    (mean, std), (own_mean, own_std) = (
        [torch.tensor(values)[bands] for values in statistics] for statistics in (IMAGENET, trained)
    )
    with torch.no_grad():
        offset: Tensor = (first.weight.sum((2, 3)) * ((mean - own_mean) / own_std)).sum(1)
        first.weight.mul_((std / own_std)[:, None, None])
        if first.bias is not None:
            first.bias.add_(offset)
        elif isinstance(following, nn.BatchNorm2d) and following.running_mean is not None:
            following.running_mean.sub_(offset)
