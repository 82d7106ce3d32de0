"""Trained networks in the folders of their trainings."""

from pathlib import Path

import torch
from torch import nn

from ome.distributed.collectives import rank_zero_value
from ome.errors import UserError
from ome.files import atomic_path
from ome.networks.weights import first_convolution

NETWORK = "network.pt"
"""Name of a trained network's state dict in the folder of its training."""


def save_network(network: nn.Module, folder: Path) -> None:
    """Leaves a network's weights in a folder, where `load_network` finds them."""
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    with atomic_path(folder / NETWORK) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)  # given a path, torch would write its name into the file


def is_trained(folder: Path) -> bool:
    """Whether a training in this folder has come to its end; every process must ask."""
    return rank_zero_value((folder / NETWORK).exists())


def load_network(network: nn.Module, folder: Path) -> None:
    """Gives a network the weights that a training left in a folder.

    Raises:
        UserError: They are of a network for other bands or classes, or of another network, or damaged.
    """
    path = folder / NETWORK
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file makes the library trip over anything; one that would run code is refused by it.
    except Exception as error:
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
