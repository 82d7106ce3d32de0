"""Scores of a classifier's logits as predictions of the tags."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision, binary_f1_score

from ome.errors import UserError
from ome.scoring.scores import mean_of_defined


@dataclass(frozen=True, eq=False)
class MultilabelScores:
    """Tag scores in [0, 1]; classes that occur in no tile are nan and are left out of the means.

    Attributes:
        average_precision: (C,) float64, area under the precision-recall curve (step-wise, not interpolated).
        f1: (C,) float64, at the decision threshold logit > 0.
    """

    average_precision: NDArray[np.float64]
    f1: NDArray[np.float64]

    @property
    def mean_average_precision(self) -> float:
        """Mean of `average_precision` over the classes that occur (mAP); nan if none does."""
        return mean_of_defined(self.average_precision)

    @property
    def mean_f1(self) -> float:
        """Mean of `f1` over the classes that occur; nan if none does."""
        return mean_of_defined(self.f1)


def multilabel_scores(logits: Tensor, tags: Tensor) -> MultilabelScores:
    """Scores the predicted tags of all tiles at once.

    Args:
        logits: (N, C) float, finite; a class is predicted if its logit is positive.
        tags: (N, C) of 0 and 1 (any dtype).

    Returns:
        Average precision and F1 per class, with their means.

    Raises:
        ValueError: Shapes differ, or there is no tile.
        UserError: A logit is nan or infinite.
    """
    if logits.ndim != 2 or logits.shape != tags.shape or not len(logits):
        raise ValueError(
            f"logits {tuple(logits.shape)} and tags {tuple(tags.shape)} must both be (tiles, classes)"
        )
    wrong = int((~logits.isfinite()).sum())
    if wrong:
        raise UserError(
            f"{wrong} of {logits.numel()} predicted tags are nan or infinite: lower the learning rate, or "
            "set trainer.precision=32-true"
        )
    ranks, predicted, targets = _ranks(logits.detach()).cpu(), (logits > 0).cpu(), tags.detach().cpu().long()
    average_precision, f1 = np.full((2, logits.shape[1]), np.nan)
    for index in targets.any(dim=0).nonzero().flatten().tolist():
        average_precision[index] = binary_average_precision(ranks[:, index], targets[:, index])
        f1[index] = binary_f1_score(predicted[:, index].long(), targets[:, index])
    return MultilabelScores(average_precision, f1)


def tag_uncertainty(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Uncertainty of a classifier about the tags of tiles.

    Args:
        probabilities: (N, C) in [0, 1], of each class in each tile.

    Returns:
        (N,) in [0, 1]: mean over the classes of the binary entropy in bits; 1 if all probabilities are 0.5.
    """
    # Avoids 0 log 0.
    inside = np.clip(probabilities, 1e-12, 1 - 1e-12)
    entropy = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside))
    return np.asarray(entropy.mean(axis=1))


def _ranks(logits: Tensor) -> Tensor:
    """Values in [0, 1] with the order and ties of the logits; a float32 sigmoid is 1 for logits above 17."""
    values, ranks = torch.unique(logits, return_inverse=True)
    scaled: Tensor = ranks.double() / max(len(values) - 1, 1)
    return scaled
