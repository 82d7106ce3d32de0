"""Copies the tensors of a checkpoint into a network, by name."""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ome.errors import OtherBandsError, UserError, few
from ome.networks.checkpoint_file import bare_name

logger = logging.getLogger(__name__)

SMALLEST_FRACTION = 0.9
"""Fraction of a network's tensors that a checkpoint must have; with fewer, it is of another network."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a network and of a checkpoint do not match, by name.

    Attributes:
        missing: Tensors of the network that the checkpoint lacks; they keep their initial values.
        unexpected: Tensors of the checkpoint that the network lacks, such as those of a classifier head.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copies tensors into a network by name; see `load_weights`.

    A dot and an underscore in a name count as equal, since timm's networks of feature maps write `stem_0` for
    `stem.0`.

    Raises:
        UserError: A shape differs, or fewer than nine tenths of the network's tensors are in the checkpoint.
        OtherBandsError: Nothing but the number of bands differs.
    """
    targets, sources = by_comparable_name(module.state_dict()), by_comparable_name(tensors)
    loaded: dict[str, Tensor] = {}
    misfits, bands = [], None
    first = first_convolution(module)
    for key in [key for key in targets if key in sources]:
        (name, target), value = targets[key], _adapt_bands(sources[key][1], targets[key][1].shape)
        if value.shape == target.shape:
            loaded[name] = value
        elif name == first and value.shape[1:2] != target.shape[1:2]:
            bands = value.shape[1], target.shape[1]
        else:
            misfits.append(f"{name} {list(value.shape)} instead of {list(target.shape)}")
    if misfits:
        raise UserError(
            f"{source}: {len(misfits)} tensors have another shape than in the network: {few(misfits, 3)}; "
            "give the weights of this network"
        )
    # Old checkpoints lack this counter of BatchNorm, which only training with momentum=None reads.
    required = [name for name, _ in targets.values() if not name.endswith("num_batches_tracked")]
    missing = tuple(name for name in required if name not in loaded and not (bands and name == first))
    if len(missing) > (1 - SMALLEST_FRACTION) * len(required):
        raise UserError(
            f"{source} lacks {len(missing)} of the network's {len(required)} tensors ({few(missing, 3)}) and "
            f"has {few(tensors, 3)}: these are another network's weights, or have another library's names; "
            "give timm's file of this network"
        )
    if bands:
        raise OtherBandsError(
            f"{source} is for images of {bands[0]} bands, but the dataset has {bands[1]} "
            "(dataset.channels): only weights for 3 bands can be adapted to another number"
        )
    module.load_state_dict(loaded, strict=False)
    unexpected = tuple(name for key, (name, _) in sources.items() if key not in targets)
    logger.info("%s: %d tensors loaded, not used: %s", source, len(loaded), few(unexpected, 3) or "none")
    if missing:
        logger.warning("%s: %d tensors keep random values: %s", source, len(missing), few(missing, 3))
    return LoadReport(missing, unexpected)


def unwrapped(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the name of a wrapper that no list knows, such as `ema_model.module.`.

    Args:
        module: The network that they are for.
        tensors: The tensors of a checkpoint; returned as they are if less than half of the network's names
            stand behind one prefix, or as many stand without it.
    """
    names = {comparable(name) for name in module.state_dict()}
    prefixes: Counter[str] = Counter()
    for name in tensors:
        dots = (match.start() for match in re.finditer(r"\.", name))
        first = next((dot for dot in dots if comparable(name[dot + 1 :]) in names), 0)
        prefixes[name[:first]] += 1
    prefixes.pop("", None)
    (prefix, count), *others = [*prefixes.most_common(), ("", 0)]
    if count < max(len(names) / 2, 1 + sum(comparable(name) in names for name in tensors)):
        return dict(tensors)
    if alike := [other for other, number in others if number == count]:
        logger.warning("several networks in the weights: %s is used, not %s", prefix, " or ".join(alike))
    return {name[len(prefix) + 1 :]: one for name, one in tensors.items() if name.startswith(f"{prefix}.")}


def first_convolution(module: nn.Module) -> str:
    """Name of the first kernel (out, bands, k, k) of a network, which reads the image; "" if it has none."""
    return next((name for name, tensor in module.state_dict().items() if tensor.ndim == 4), "")


def comparable(name: str) -> str:
    """The name of a tensor without wrapper prefixes, with underscores for dots."""
    return bare_name(name).replace(".", "_")


def by_comparable_name(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Each name and tensor by the name without prefixes, or with them where two would be equal without."""
    tensors_of = {comparable(name): (name, tensor) for name, tensor in tensors.items()}
    if len(tensors_of) == len(tensors):
        return tensors_of
    return {name.replace(".", "_"): (name, tensor) for name, tensor in tensors.items()}


def _adapt_bands(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Adapts a kernel (out, 3, k, k) to the bands of `shape`, with the same response to a grey image.

    Any other tensor is returned as it is.
    """
    if tensor.ndim != 4 or tensor.shape[1] != 3 or shape[1] == 3 or len(shape) != 4:
        return tensor
    if (tensor.shape[0], *tensor.shape[2:]) != (shape[0], *shape[2:]):
        return tensor
    if shape[1] == 1:
        return tensor.sum(dim=1, keepdim=True)
    return tensor[:, torch.arange(shape[1]) % 3] * (3 / shape[1])
