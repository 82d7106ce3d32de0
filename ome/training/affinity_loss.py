"""AffinityNet's labels on the grid and its loss over pairs, as pure functions.

Ahn & Kwak, CVPR 2018, section 3.2.2, without a background class: of the paper's bg/4 + fg/4 + neg/2 remains
fg/2 + neg/2.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ome.ignore import IGNORE

EPSILON = 1e-5


class AffinityLoss(NamedTuple):
    """Loss sums over the pairs of a batch.

    Attributes:
        sums: (2,) float: of -log a over pairs of one class, of -log(1 - a) over pairs of two classes.
        pairs: (2,) float: how many pairs there are of each kind.
    """

    sums: Tensor
    pairs: Tensor

    def mean(self, pairs: Tensor | None = None) -> Tensor:
        """Half the mean over pairs of one class plus half the mean over pairs of two, a scalar.

        Args:
            pairs: (2,) the divisors; by default this batch's. With P processes, whose gradients are averaged,
                give the sum over all of them, divided by P.

        Returns:
            The loss; a kind without pairs adds 0.
        """
        counts = self.pairs if pairs is None else pairs
        # A count may be a fraction when it is shared between processes, but then there is a pair somewhere.
        return torch.where(counts > 0, self.sums / counts.clamp_min(EPSILON), 0.0).mean()


def grid_labels(mask: Tensor, num_classes: int, stride: int) -> Tensor:
    """Brings labels to the affinity grid: the most frequent one of each cell's pixels.

    Args:
        mask: Class indices (B, H, W), int64; 255 has no class, and counts as a label of its own.
        num_classes: C.
        stride: Pixels that a cell spans along one axis. Cells at the right and lower edge may be smaller.

    Returns:
        (B, ceil(H / stride), ceil(W / stride)) int64, 255 where most pixels have no class. Of labels equally
        frequent the lowest is taken.
    """
    counted = torch.where(mask == IGNORE, num_classes, mask)
    shares = F.one_hot(counted, num_classes + 1).movedim(-1, 1).float()
    winners = F.avg_pool2d(shares, stride, ceil_mode=True).argmax(dim=1)
    return torch.where(winners == num_classes, IGNORE, winners)


def affinity_loss(affinity: Tensor, labels: Tensor, pairs: Tensor) -> AffinityLoss:
    """Compares the affinity of neighbouring cells with whether they have the same label.

    Args:
        affinity: (B, P) in (0, 1], float.
        labels: (B, h, w) class indices; pairs with a 255 take no part.
        pairs: (2, P) row-major indices of both cells of each pair.

    Returns:
        The sums; `mean()` of them is the loss.
    """
    first, second = labels.flatten(1)[:, pairs[0]], labels.flatten(1)[:, pairs[1]]
    labelled = (first != IGNORE) & (second != IGNORE)
    same = (labelled & (first == second)).to(affinity.dtype)
    different = (labelled & (first != second)).to(affinity.dtype)
    positive = -(same * torch.log(affinity + EPSILON)).sum()
    negative = -(different * torch.log(1 + EPSILON - affinity)).sum()
    return AffinityLoss(torch.stack([positive, negative]), torch.stack([same.sum(), different.sum()]))
