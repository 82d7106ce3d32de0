"""Several networks of one class each, used like one network of all classes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ome.networks.pooling import Pooling
from ome.networks.seam import CamPair, SeamNetwork


class OneVsAllNetwork(nn.Module):
    """Stacks the CAMs of C networks of one class each, in the order of the classes."""

    def __init__(self, networks: Sequence[SeamNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.zoom = networks[0].zoom
        self.pooling: Pooling = "mean"  # a network of one class has no others that compete

    def forward(self, image: Tensor) -> CamPair:
        """Computes the CAMs (B, C, H, W) of images (B, bands, H, W); see `SeamNetwork.forward`."""
        pairs = [network(image) for network in self.networks]
        return CamPair(*(torch.cat(maps, dim=1) for maps in zip(*pairs, strict=True)))
