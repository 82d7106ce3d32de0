"""Published encoder weights, downloaded from a hub or read from its local cache."""

import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import huggingface_hub
import segmentation_models_pytorch as smp
import timm
from huggingface_hub import constants
from torch import Tensor, nn

from ome.errors import UserError
from ome.networks.encoder import TIMM_PREFIX, resolve_encoder
from ome.networks.transformers import is_plain_transformer


def published_weights(name: str) -> list[str]:
    """Names of an encoder's published weights: "imagenet" first if it exists; of timm also tags (a1_in1k)."""
    resolved = resolve_encoder(name)
    if not resolved.startswith(TIMM_PREFIX):
        return list(smp.encoders.encoders[resolved]["pretrained_settings"])
    tagged = timm.list_pretrained(_timm_model(resolved))
    return ["imagenet", *(model.partition(".")[2] for model in tagged)] if tagged else []


def check_published(name: str, weights: str) -> None:
    """Checks that published weights exist, without using the internet.

    Raises:
        UserError: They do not.
    """
    available = [] if name == "resnet38d" else published_weights(name)
    if weights not in available:
        raise UserError(
            f"encoder {name!r} has no published weights {weights!r} (there are: "
            f"{', '.join(available) or 'none'}); give the path of a file, such as /path/file.pth"
        )


def download_encoder(name: str, weights: str) -> dict[str, Tensor]:
    """Reads published weights of an encoder for three bands from the local cache or downloads them.

    Args:
        name: Any name `resolve_encoder` accepts.
        weights: One of `published_weights(name)`.

    Returns:
        The encoder's state dict.

    Raises:
        UserError: The weights do not exist, or are not in the cache and cannot be downloaded.
    """
    resolved = resolve_encoder(name)
    check_published(name, weights)
    if resolved.startswith(TIMM_PREFIX) and weights != "imagenet":
        resolved = f"{TIMM_PREFIX}{_timm_model(resolved)}.{weights}"
    try:
        with _offline_if_unreachable():
            if is_plain_transformer(name):
                model = resolved.removeprefix(TIMM_PREFIX)
                return dict(timm.create_model(model, pretrained=True, num_classes=0).state_dict())
            encoder: nn.Module = smp.encoders.get_encoder(
                resolved, weights=True if resolved.startswith(TIMM_PREFIX) else weights
            )
    except Exception as error:
        # The client libraries raise many kinds of errors.
        raise UserError(
            f"cannot download weights {weights!r} of encoder {name!r} ({type(error).__name__}): "
            "download them elsewhere and give the path of the file, such as /path/file.pth"
        ) from error
    return dict(encoder.state_dict())


def _timm_model(resolved: str) -> str:
    return resolved.removeprefix(TIMM_PREFIX).split(".")[0]


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Lets the hub client use its cache only, if the hub's host name does not resolve.

    Otherwise it would retry each file for half a minute and log every attempt.
    """
    offline, verbosity = constants.HF_HUB_OFFLINE, huggingface_hub.logging.get_verbosity()
    host = urlsplit(constants.ENDPOINT).hostname or ""
    try:
        if not urllib.request.getproxies():
            socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    huggingface_hub.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        huggingface_hub.logging.set_verbosity(verbosity)
