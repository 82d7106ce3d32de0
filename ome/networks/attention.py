"""Self-attention of a transformer encoder, applied to class maps instead of features.

Class maps are averaged over cells that are similar according to the encoder. Averaging them by the mean
attention of heads and blocks follows MCTformer (Xu et al., CVPR 2022). Here, attention is between queries, as
in SCLIP (Wang, Mei & Yuille, ECCV 2024), and each query is divided by its norm, as in GEM (Bousselham et al.,
CVPR 2024). Thus the weight is largest between similar cells even in an encoder that was trained on few
images, whose attention to keys is close to uniform, and it is on the grid of the queries where the keys' is
coarser.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ome.networks.pcm import ENTRIES


def attend(
    maps: Tensor, queries: Sequence[Tensor], temperature: float, entries: int | None = ENTRIES
) -> Tensor:
    """Averages class maps over cells with similar queries.

    With q_i the query of cell i in one head of one block, divided by its norm, the weight of cell j for cell
    i is the softmax over j of q_i . q_j / temperature; the result is the mean over heads and blocks.

    Args:
        maps: Class maps (B, C, h, w), any real values.
        queries: Queries of each block, (B, heads, d, h, w).
        temperature: Positive; with a lower temperature, cells must be more similar to have a weight.
        entries: Weights of one block, over all B images and heads, computed at a time (at least one row);
            None for all.

    Returns:
        The averaged maps (B, C, h, w), float32 (float64 for float64 inputs).
    """
    with torch.autocast(maps.device.type, enabled=False):
        dtype = torch.promote_types(maps.dtype, torch.float32)
        values = maps.flatten(2).transpose(1, 2).to(dtype)
        blocks = [_attend(values, block.flatten(3).to(dtype), temperature, entries) for block in queries]
        return torch.stack(blocks).mean(0).transpose(1, 2).reshape(maps.shape)


def _attend(values: Tensor, queries: Tensor, temperature: float, entries: int | None) -> Tensor:
    """Averages (B, h w, C) values by the (B, heads, d, h w) queries of one block."""
    unit = F.normalize(queries, dim=2).transpose(2, 3)
    images, heads, cells, _ = unit.shape
    rows = cells if entries is None else max(1, entries // (images * heads * cells))
    # Every head averages the same values.
    shared = values[:, None].expand(-1, heads, -1, -1)
    parts = [
        F.scaled_dot_product_attention(part, unit, shared, scale=1 / temperature).mean(1)
        for part in torch.split(unit, rows, dim=2)
    ]
    return torch.cat(parts, dim=1)
