"""The mistakes of the published code are repeated as they are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ome.networks.seam import CamPair
from ome.training.quirks import KeepHighestValidationLoss, broadcast_loss


def test_every_score_meets_every_tag() -> None:
    logits = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tags = torch.tensor([[1, 0], [1, 1], [0, 0]])
    total = 0.0
    for i, j, k, m in np.ndindex(3, 2, 3, 2):
        probability = 1 / (1 + np.exp(-logits[k, m].item()))
        total -= np.log(probability if tags[i, j] else 1 - probability)
    assert broadcast_loss(logits, tags).item() == pytest.approx(total / 36)


class Constant(nn.Module):
    """Gives the same score everywhere; without tags, the higher it is the higher the loss."""

    pooling = "competing"

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> CamPair:
        maps = self.score.expand(len(image), 2, 4, 4)
        return CamPair(maps, maps)


@torch.no_grad()
def validate(callback: KeepHighestValidationLoss, module: nn.Module, score: float) -> None:
    module.network.score.data.fill_(score)
    unused: Any = SimpleNamespace()
    for _ in range(2):
        batch = {"image": torch.zeros(3, 3, 4, 4), "tags": torch.zeros(3, 2)}
        callback.on_validation_batch_end(unused, module, None, batch, 0)
    callback.on_validation_epoch_end(unused, module)


def test_the_worst_epoch_is_kept_also_after_an_interruption(tmp_path: Path) -> None:
    module: Any = nn.Module()
    module.network = Constant()
    callback = KeepHighestValidationLoss(tmp_path)
    for score in (0.5, 2.0, 1.0):
        validate(callback, module, score)
    resumed = KeepHighestValidationLoss(tmp_path)
    resumed.load_state_dict(callback.state_dict())
    validate(resumed, module, 1.5)
    resumed.on_train_end(SimpleNamespace(), module)  # type: ignore[arg-type]
    assert module.network.score.item() == 2
    assert not list(tmp_path.iterdir())


def test_without_validation_the_last_weights_stay(tmp_path: Path) -> None:
    module: Any = nn.Module()
    module.network = Constant()
    KeepHighestValidationLoss(tmp_path).on_train_end(SimpleNamespace(), module)  # type: ignore[arg-type]
    assert module.network.score.item() == 0
