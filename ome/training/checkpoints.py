"""Saves and loads trained networks."""

from pathlib import Path

import torch
from torch import nn

from ome.distributed.collectives import rank_zero_value
from ome.errors import UserError, few
from ome.faults import is_no_damage
from ome.files import atomic_path
from ome.networks.tensors import first_convolution
from ome.pipeline.layout import NETWORK


def save_network(network: nn.Module, folder: Path) -> None:
    """Writes a network's weights into a folder, for `load_network`.

    Raises:
        UserError: A weight is nan or infinite: the last step of a training has no loss after it that tells.
    """
    if broken := [name for name, weight in network.named_parameters() if not weight.isfinite().all()]:
        raise UserError(
            f"the weights for {folder / NETWORK} are nan or infinite ({few(broken)}): lower the learning "
            "rate, or set trainer.precision=32-true"
        )
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    with atomic_path(folder / NETWORK) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)  # with a path instead, torch would write its name into the file


def is_trained(folder: Path) -> bool:
    """Whether the training in this folder is finished; a collective call of all processes."""
    return rank_zero_value((folder / NETWORK).exists())


def load_network(network: nn.Module, folder: Path) -> None:
    """Loads the weights that a training has written into a folder.

    Raises:
        UserError: They are damaged, or of another network, or for other bands or classes.
    """
    path = folder / NETWORK
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file may raise any error; torch refuses a file that would run code.
    except Exception as error:
        if is_no_damage(error):
            raise
        raise UserError(
            f"{path} holds no weights ({type(error).__name__}): delete it and run its stage again"
        ) from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = first_convolution(network)
        bands = [state[first].shape[1] for state in (tensors, network.state_dict()) if first in state]
        difference = "is of another network, or of other classes"
        if len(set(bands)) > 1:
            difference = (
                f"was trained on images of {bands[0]} bands, and now they have {bands[1]} (dataset.channels)"
            )
        raise UserError(f"{path} {difference}: run the stage that trains it again") from error
