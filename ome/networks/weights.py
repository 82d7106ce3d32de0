"""Loading weights: published checkpoints, files converted from other libraries, and the hubs."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ome.errors import UserError
from ome.networks.checkpoint_file import SUFFIXES, bare_name, read_checkpoint
from ome.networks.hub import download_encoder
from ome.networks.packaged import PACKAGE, packaged_encoder
from ome.networks.statistics import adapt_to_imagenet, check_convertible, statistics_of

logger = logging.getLogger(__name__)

SMALLEST_FRACTION = 0.9
"""Fraction of a network's tensors that a checkpoint must have; with fewer, it is of another network."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a network were loaded from a checkpoint, by name.

    Attributes:
        loaded: Tensors of the network that were loaded.
        missing: Tensors of the network that the checkpoint lacks; they keep their initial values.
        unexpected: Tensors of the checkpoint that the network lacks, such as those of a classifier head.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def looks_like_file(weights: str) -> bool:
    """Whether `weights` is a path; otherwise it is the name of published weights."""
    return "/" in weights or "\\" in weights or weights.endswith(SUFFIXES) or Path(weights).is_file()


def load_weights(module: nn.Module, source: Path | str) -> LoadReport:
    """Loads a local checkpoint into a network.

    Tensors are matched by name, without wrapper prefixes ("module.", "backbone.", "encoder.", ...) on either
    side. A first convolution of three bands is adapted to any other number of bands. The tensors that were
    not loaded are logged.

    Args:
        module: The network; its tensors are overwritten in place.
        source: A `.pth`-like file (a state dict, itself or under "state_dict") or a `.safetensors` file.

    Raises:
        UserError: The file is missing or unreadable, has less than nine tenths of the network's tensors, or
            one of another shape.
    """
    return load_tensors(module, read_checkpoint(Path(source)), str(source))


def load_classifier(network: nn.Module, source: Path | str, names: Sequence[str]) -> None:
    """Loads a whole trained classifier, such as a published `resnet38_SEAM.pth`.

    Args:
        network: A `SeamNetwork`; its tensors are overwritten in place.
        source: See `load_weights`.
        names: The C class names, in the order of the checkpoint's classes, which it does not name.

    Raises:
        UserError: The file cannot be read, has another number of classes or bands, or lacks tensors of the
            network or has others.
    """
    tensors = read_checkpoint(Path(source), "stage.cam.checkpoint")
    classes = [len(tensor) for name, tensor in tensors.items() if bare_name(name) == "fc8.weight"]
    if classes and classes != [len(names)]:
        raise UserError(
            f"{source} has {classes[0]} classes and the dataset has {len(names)} ({', '.join(names)}): "
            "stage.cam.checkpoint needs a classifier of these classes, without background"
        )
    first = first_convolution(network)
    _, kernel = _by_comparable_name(tensors).get(_comparable(first), ("", None))
    channels = network.state_dict()[first].shape[1]
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] != channels:
        raise UserError(
            f"{source} is for images of {kernel.shape[1]} bands, but the dataset has {channels} "
            "(dataset.channels): a whole classifier needs the same number of bands"
        )
    report = load_tensors(network, tensors, str(source))
    if report.missing or report.unexpected:
        raise UserError(
            f"{source} does not fit the classifier: missing keys {_few(report.missing) or 'none'}, "
            f"unexpected keys {_few(report.unexpected) or 'none'}; for a backbone's weights type "
            "backbone.weights=..."
        )


def load_encoder(encoder: nn.Module, name: str, weights: str) -> LoadReport:
    """Loads a local file or published weights into a segmentation-models-pytorch or timm encoder.

    Args:
        encoder: An encoder of `segmentation_models_pytorch.encoders.get_encoder`; overwritten in place.
        name: The encoder's name.
        weights: A path, "package" (see `packaged_encoder`), or a name such as "imagenet" (timm: also a tag
            such as "a1_in1k").

    Raises:
        UserError: The weights do not exist, cannot be downloaded, or do not fit the encoder.
    """
    source = weights if looks_like_file(weights) else f"{name} {weights}"
    check_convertible(encoder, name, weights)
    if looks_like_file(weights):
        tensors = read_checkpoint(Path(weights))
    elif weights == PACKAGE:
        tensors = packaged_encoder(name)
    else:
        tensors = download_encoder(name, weights)
    report = load_tensors(encoder, tensors, source)
    if report.missing:
        raise UserError(
            f"{source} does not fit encoder {name!r}: missing keys {_few(report.missing)}, unexpected keys "
            f"{_few(report.unexpected, 8) or 'none'}; give the weights of this encoder"
        )
    adapt_to_imagenet(encoder, statistics_of(name, weights))
    return report


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copies tensors into a network by name; see `load_weights`.

    A dot and an underscore in a name count as equal, since timm's networks of feature maps write `stem_0` for
    `stem.0`.

    Args:
        module: The network.
        tensors: The checkpoint's tensors by name.
        source: Name of the checkpoint in messages.

    Raises:
        UserError: The number of bands or another shape differs, or fewer than nine tenths of the network's
            tensors are in the checkpoint.
    """
    targets, sources = _by_comparable_name(module.state_dict()), _by_comparable_name(tensors)
    loaded: dict[str, Tensor] = {}
    misfits = []
    first = first_convolution(module)
    for key in [key for key in targets if key in sources]:
        (name, target), value = targets[key], _adapt_bands(sources[key][1], targets[key][1].shape)
        if value.shape == target.shape:
            loaded[name] = value
        elif name == first and value.shape[1:2] != target.shape[1:2]:
            raise UserError(
                f"{source} is for images of {value.shape[1]} bands, but the dataset has {target.shape[1]} "
                "(dataset.channels): only weights for 3 bands can be adapted to another number"
            )
        else:
            misfits.append(f"{name} {list(value.shape)} instead of {list(target.shape)}")
    if misfits:
        raise UserError(
            f"{source}: {len(misfits)} tensors have another shape than in the network: {_few(misfits)}"
        )
    # Old checkpoints lack this counter of BatchNorm, which only training with momentum=None reads.
    required = [name for name, _ in targets.values() if not name.endswith("num_batches_tracked")]
    missing = tuple(name for name in required if name not in loaded)
    if len(missing) > (1 - SMALLEST_FRACTION) * len(required):
        raise UserError(
            f"{source} lacks {len(missing)} of the network's {len(required)} tensors ({_few(missing)}) and "
            f"has {_few(tensors)}: these are another network's weights"
        )
    module.load_state_dict(loaded, strict=False)
    unexpected = tuple(name for key, (name, _) in sources.items() if key not in targets)
    logger.info("%s: %d tensors loaded, not used: %s", source, len(loaded), _few(unexpected) or "none")
    if missing:
        logger.warning("%s: %d tensors keep random values: %s", source, len(missing), _few(missing))
    return LoadReport(tuple(loaded), missing, unexpected)


def first_convolution(module: nn.Module) -> str:
    """Name of the first kernel (out, bands, k, k) of a network, which reads the image; "" if it has none."""
    return next((name for name, tensor in module.state_dict().items() if tensor.ndim == 4), "")


def _comparable(name: str) -> str:
    return bare_name(name).replace(".", "_")


def _by_comparable_name(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Each name and tensor by the name without prefixes, or with them where two would be equal without."""
    tensors_of = {_comparable(name): (name, tensor) for name, tensor in tensors.items()}
    if len(tensors_of) == len(tensors):
        return tensors_of
    return {name.replace(".", "_"): (name, tensor) for name, tensor in tensors.items()}


def _few(names: Iterable[str], count: int = 3) -> str:
    listed = list(names)
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")


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
