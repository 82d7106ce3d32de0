"""Loading weights: published checkpoints, files converted from other libraries, and the hubs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ome.errors import UserError, few
from ome.networks.checkpoint_file import SUFFIXES, bare_name, read_checkpoint
from ome.networks.hub import download_encoder
from ome.networks.package_weights import PACKAGE, packaged_encoder
from ome.networks.statistics import (
    adapt_to_imagenet,
    check_convertible,
    say_assumed_statistics,
    statistics_of,
)
from ome.networks.tensors import (
    LoadReport,
    by_comparable_name,
    comparable,
    first_convolution,
    load_tensors,
    unwrapped,
)
from ome.networks.transformer_weights import fitted_to_timm
from ome.networks.transformers import is_plain_transformer


def looks_like_file(weights: str) -> bool:
    """Whether `weights` is a path; otherwise it is the name of published weights."""
    return "/" in weights or "\\" in weights or weights.endswith(SUFFIXES) or Path(weights).is_file()


def is_published(weights: str) -> bool:
    """Whether `weights` are downloaded from a hub: neither a file nor those of a package."""
    return weights != PACKAGE and not looks_like_file(weights)


def load_weights(module: nn.Module, source: Path | str) -> LoadReport:
    """Loads a local checkpoint into a network.

    Tensors are matched by name, without wrapper prefixes ("module.", "backbone.", "encoder.", ...) on either
    side; other prefixes are found (`unwrapped`). A first convolution of three bands is adapted to any other
    number of bands. The tensors that were not loaded are logged.

    Args:
        module: The network; its tensors are overwritten in place.
        source: A `.pth`-like file (a state dict, itself or under "state_dict") or a `.safetensors` file.

    Raises:
        UserError: The file is missing or unreadable, has less than nine tenths of the network's tensors, or
            one of another shape.
    """
    return load_tensors(module, unwrapped(module, read_checkpoint(Path(source))), str(source))


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
    tensors = unwrapped(network, read_checkpoint(Path(source), "stage.cam.checkpoint"))
    classes = [len(tensor) for name, tensor in tensors.items() if bare_name(name) == "fc8.weight"]
    if classes and classes != [len(names)]:
        raise UserError(
            f"{source} has {classes[0]} classes and the dataset has {len(names)} ({', '.join(names)}): "
            "stage.cam.checkpoint needs a classifier of these classes, without background"
        )
    first = first_convolution(network)
    _, kernel = by_comparable_name(tensors).get(comparable(first), ("", None))
    channels = network.state_dict()[first].shape[1]
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] != channels:
        raise UserError(
            f"{source} is for images of {kernel.shape[1]} bands, but the dataset has {channels} "
            "(dataset.channels): a whole classifier needs the same number of bands"
        )
    report = load_tensors(network, tensors, str(source))
    if report.missing or report.unexpected:
        raise UserError(
            f"{source} does not fit the classifier: missing keys {few(report.missing, 3) or 'none'}, "
            f"unexpected keys {few(report.unexpected, 3) or 'none'}; for a backbone's weights type "
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
    with torch.random.fork_rng(devices=[]):  # a seed gives the same training, wherever its weights come from
        if looks_like_file(weights):
            tensors = unwrapped(encoder, read_checkpoint(Path(weights)))
            say_assumed_statistics(name, weights)
        elif weights == PACKAGE:
            tensors = packaged_encoder(name)
        else:
            tensors = download_encoder(name, weights)
    if is_plain_transformer(name):  # in a segmenter, timm's network is the `model` of the encoder
        tensors = fitted_to_timm(getattr(encoder, "model", encoder), tensors)
    report = load_tensors(encoder, tensors, source)
    if report.missing:
        raise UserError(
            f"{source} does not fit encoder {name!r}: missing keys {few(report.missing, 3)}, unexpected keys "
            f"{few(report.unexpected, 8) or 'none'}; give the weights of this encoder"
        )
    adapt_to_imagenet(encoder, statistics_of(name, weights))
    return report
