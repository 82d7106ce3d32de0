"""Self-attention of a transformer encoder, applied to class maps instead of features.

The encoder's queries say which places look alike, and class maps are averaged over these. To carry class maps
by the mean attention of heads and blocks follows MCTformer (Xu et al., CVPR 2022). Here queries attend to
queries, as in SCLIP (Wang, Mei & Yuille, ECCV 2024), and each is divided by its norm, as in GEM (Bousselham
et al., CVPR 2024): the weight is then largest between like places even in an encoder that has seen few
images, whose attention to keys is close to uniform, and it is as fine as the queries where the keys are of a
coarser grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ome.networks.pcm import ENTRIES


def attend(
    maps: Tensor, queries: Sequence[Tensor], temperature: float, entries: int | None = ENTRIES
) -> Tensor:
    """Averages class maps over places whose queries are alike.

    With q_i the query of place i in one head of one block, divided by its norm, the weight of place j at
    place i is the softmax over j of q_i . q_j / temperature; the result is the mean over heads and blocks.

    Args:
        maps: Class maps (B, C, h, w), any real values.
        queries: Queries of each block, (B, heads, d, h, w).
        temperature: The lower, the more alike places must be; positive.
        entries: Weights of one block, over all B images and heads, built at once (at least one row); None
            builds all.

    Returns:
        The averaged maps (B, C, h, w), float32 (float64 for float64 inputs).
    """
    with torch.autocast(maps.device.type, enabled=False):
        dtype = torch.promote_types(maps.dtype, torch.float32)
        values = maps.flatten(2).transpose(1, 2).to(dtype)
        blocks = [_attend(values, block.flatten(3).to(dtype), temperature, entries) for block in queries]
        return torch.stack(blocks).mean(0).transpose(1, 2).reshape(maps.shape)


def _attend(values: Tensor, queries: Tensor, temperature: float, entries: int | None) -> Tensor:
    """Attends with one block: (B, h w, C) values, (B, heads, d, h w) queries."""
    unit = F.normalize(queries, dim=2).transpose(2, 3)
    images, heads, places, _ = unit.shape
    rows = places if entries is None else max(1, entries // (images * heads * places))
    # Every head averages the same values.
    shared = values[:, None].expand(-1, heads, -1, -1)
    parts = [
        F.scaled_dot_product_attention(part, unit, shared, scale=1 / temperature).mean(1)
        for part in torch.split(unit, rows, dim=2)
    ]
    return torch.cat(parts, dim=1)
