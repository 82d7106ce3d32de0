"""The confusion matrix as a metric that trainings add batches to."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ome.scoring.confusion import count_pixels
from ome.scoring.scores import Scores


class ConfusionMetric(Metric):
    """Confusion matrix gathered over batches and, by summing counts, over processes.

    The state is int64, so that no pixel is lost to rounding after 2^24 of them.

    Args:
        num_classes: C.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics' own options
        super().__init__(**kwargs)
        self.num_classes = num_classes
        zeros = torch.zeros((num_classes, num_classes), dtype=torch.int64)
        self.add_state("matrix", default=zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, reference: Tensor) -> None:
        """Adds a batch; see `count_pixels`."""
        self.matrix = self.matrix + count_pixels(prediction, reference, self.num_classes)

    def compute(self) -> Tensor:
        """The (C, C) int64 matrix of everything seen by all processes; rows are the reference."""
        return self.matrix

    def scores(self, names: Sequence[str]) -> Scores:
        """The scores of everything seen by all processes; every process must call this."""
        # `Metric.compute` takes the dimensions of a single value away.
        matrix = self.compute().cpu().numpy().reshape(len(names), len(names))
        return Scores(matrix, tuple(names))
