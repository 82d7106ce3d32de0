"""AffinityNet's labels on the grid and its loss over pairs, as pure functions.

Ahn & Kwak, CVPR 2018, section 3.2.2, without a background class: the paper's bg/4 + fg/4 + neg/2 becomes
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
        sums: (2,) float: sum of -log a over pairs of the same class, of -log(1 - a) over pairs of different
            classes.
        pairs: (2,) float: number of pairs of each kind.
    """

    sums: Tensor
    pairs: Tensor

    def mean(self, pairs: Tensor | None = None) -> Tensor:
        """Half the mean over pairs of the same class plus half the mean over other pairs, a scalar.

        Args:
            pairs: (2,) divisors; by default those of this batch. With P processes, whose gradients are
                averaged, pass the sum over all of them, divided by P.

        Returns:
            The loss; a kind without pairs adds 0.
        """
        counts = self.pairs if pairs is None else pairs
        # With several processes a count may be a fraction, but is 0 only if no process has a pair.
        return torch.where(counts > 0, self.sums / counts.clamp_min(EPSILON), 0.0).mean()


def grid_labels(mask: Tensor, num_classes: int, stride: int) -> Tensor:
    """Downsamples labels to the affinity grid: the most frequent label of each cell's pixels.

    Args:
        mask: Class indices (B, H, W), int64; 255 (no class) counts as a further label.
        num_classes: C.
        stride: Side of a cell in pixels. Cells at the right and lower edge may be smaller.

    Returns:
        (B, ceil(H / stride), ceil(W / stride)) int64, 255 where that is the most frequent label. Ties go to
        the lowest label.
    """
    labels = torch.where(mask == IGNORE, num_classes, mask)
    one_hot = F.one_hot(labels, num_classes + 1).movedim(-1, 1).float()
    most_frequent = F.avg_pool2d(one_hot, stride, ceil_mode=True).argmax(dim=1)
    return torch.where(most_frequent == num_classes, IGNORE, most_frequent)


def affinity_loss(affinity: Tensor, labels: Tensor, pairs: Tensor) -> AffinityLoss:
    """Compares the affinity of neighbouring cells with whether they have the same label.

    Args:
        affinity: (B, P) in (0, 1], float.
        labels: (B, h, w) class indices; pairs with a 255 are ignored.
        pairs: (2, P) row-major indices of both cells of each pair.
    """
    first, second = labels.flatten(1)[:, pairs[0]], labels.flatten(1)[:, pairs[1]]
    labelled = (first != IGNORE) & (second != IGNORE)
    same = (labelled & (first == second)).to(affinity.dtype)
    different = (labelled & (first != second)).to(affinity.dtype)
    positive = -(same * torch.log(affinity + EPSILON)).sum()
    negative = -(different * torch.log(1 + EPSILON - affinity)).sum()
    return AffinityLoss(torch.stack([positive, negative]), torch.stack([same.sum(), different.sum()]))
