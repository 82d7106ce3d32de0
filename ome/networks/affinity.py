"""AffinityNet: features whose distance predicts whether two nearby cells show the same class.

Ahn & Kwak, *Learning Pixel-level Semantic Affinity with Image-level Supervision*, CVPR 2018, section 3.2.
Layers and tensor names follow the published network on ResNet38d, which SEAM (CVPR 2020) uses unchanged.

Names of dimensions: B images, D feature channels, h x w cells of the grid, P pairs of cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.networks.backbone_network import BackboneNetwork
from ome.networks.features import Backbone, resize_maps

GRID_STRIDE = 8
"""Side of a cell of the affinity grid in input pixels."""


class AffinityNetwork(BackboneNetwork):
    """A backbone with layers that compute affinity features from three of its stages.

    Args:
        backbone: Computes the features; those of another stride than 8 are resized to the stride-8 grid.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        low, middle, final = backbone.channels
        self.f8_3 = nn.Conv2d(low, 64, 1, bias=False)
        self.f8_4 = nn.Conv2d(middle, 128, 1, bias=False)
        self.f8_5 = nn.Conv2d(final, 256, 1, bias=False)
        self.f9 = nn.Conv2d(448, 448, 1, bias=False)
        for layer in (self.f8_3, self.f8_4, self.f8_5):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def forward(self, image: Tensor) -> Tensor:
        """Computes features (B, 448, ceil(H / 8), ceil(W / 8)), at least -1, of images (B, bands, H, W)."""
        features = self.backbone(image)
        grid = [-(-size // GRID_STRIDE) for size in image.shape[2:]]
        reduced = [
            F.elu(resize_maps(layer(maps), grid))
            for layer, maps in zip((self.f8_3, self.f8_4, self.f8_5), features, strict=True)
        ]
        result: Tensor = F.elu(self.f9(torch.cat(reduced, dim=1)))
        return result


def neighbour_offsets(radius: int) -> list[tuple[int, int]]:
    """Offsets from a cell to its neighbours, one of each pair of opposite offsets.

    Args:
        radius: Distance in cells; neighbours are nearer than this.

    Returns:
        (rows, columns) with rows^2 + columns^2 < radius^2 and rows > 0, or rows = 0 and columns > 0; 34
        offsets for radius 5.
    """
    reach = range(1 - radius, radius)
    return [
        (dy, dx)
        for dy in range(radius)
        for dx in reach
        if dy * dy + dx * dx < radius * radius and (dy > 0 or dx > 0)
    ]


def pair_indices(size: Sequence[int], radius: int) -> Tensor:
    """Lists all pairs of neighbouring cells of a grid.

    (The published code omits pairs whose upper cell is within radius - 1 cells of the left, right or lower
    edge; on the grid of a small tile these are many.)

    Args:
        size: Rows h and columns w of the grid.
        radius: See `neighbour_offsets`.

    Returns:
        (2, P) int64: row-major index of the first and of the second cell of each pair, each pair once.
    """
    height, width = size
    cells = torch.arange(height * width).view(height, width)
    ends = [_ends(cells, offset) for offset in neighbour_offsets(radius)]
    return torch.stack([torch.cat([end[side].flatten() for end in ends]) for side in (0, 1)])


def pair_affinity(features: Tensor, radius: int) -> Tensor:
    """Affinity exp(-mean over channels of |f_i - f_j|) of every pair of neighbouring cells.

    Args:
        features: (B, D, h, w), float.
        radius: See `neighbour_offsets`.

    Returns:
        (B, P) in (0, 1], in the order of `pair_indices`, float32 (float64 for float64 features).
    """
    # Half precision is too coarse for log(1 - affinity) in the loss.
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    distances = []
    for offset in neighbour_offsets(radius):
        first, second = _ends(features, offset)
        distances.append((first - second).abs().mean(dim=1).flatten(1))
    return torch.exp(-torch.cat(distances, dim=1))


def _ends(grid: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views (..., h', w') of a grid (..., h, w): first and second cells of all pairs with an offset."""
    dy, dx = offset
    rows, columns = max(grid.shape[-2] - dy, 0), max(grid.shape[-1] - abs(dx), 0)
    left, right = max(-dx, 0), max(dx, 0)
    first = grid[..., :rows, left : left + columns]
    second = grid[..., dy : dy + rows, right : right + columns]
    return first, second
