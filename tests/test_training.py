"""What the Lightning modules add to the losses: the schedule, what is frozen, and the divisor."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.training.segmenter import UncertaintyWeightedSegmenter


class Pixelwise(nn.Module):
    """Two classes from one band, by one weight each; with a BatchNorm in its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.BatchNorm2d(1)
        self.head = nn.Conv2d(1, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(image)
        return logits


def module(**settings: Any) -> UncertaintyWeightedSegmenter:  # noqa: ANN401
    torch.manual_seed(0)
    made = UncertaintyWeightedSegmenter(Pixelwise(), total_steps=10, **settings)
    made.log = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
    made._trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    return made


def batch() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 1, 2, 3, generator=generator)
    mask = torch.tensor([[[0, 1, 255], [1, 0, 1]]])
    weight = torch.tensor([[[255, 51, 255], [0, 102, 10]]], dtype=torch.uint8)
    return [image, mask, weight]


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        ("none", [1, 1, 0, 1, 1, 1]),
        ("continuous", [1, 0.2, 0, 0, 0.4, 10 / 255]),
        ("threshold", [1, 1, 0, 0.05, 1, 0.05]),
    ],
)
def test_the_loss_of_a_hand_worked_batch(weighting: str, weights: list[float]) -> None:
    made = module(weighting=weighting)
    image, mask, _ = batch()
    logits = made.network(image).permute(0, 2, 3, 1).reshape(6, 2)
    target = mask.flatten().clamp_max(1)
    entropy = F.cross_entropy(logits, target, reduction="none")
    divisor = 5.0 if weighting == "threshold" else max(1.0, sum(weights))
    expected = (entropy * torch.tensor(weights)).sum() / divisor
    torch.testing.assert_close(made.training_step(batch(), 0), expected)


def test_the_rate_falls_from_the_base_to_the_minimum() -> None:
    made = module(lr=0.5, minimum_lr=0.1, power=1.0)
    configured: Any = made.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1 + 0.4 * (1 - step / 10) for step in range(10)])


@pytest.mark.parametrize("frozen", [True, False])
def test_batchnorm_of_the_encoder_stays_as_pretrained_when_asked(*, frozen: bool) -> None:
    made = module(freeze_batchnorm=frozen)
    made.train()
    made.on_train_epoch_start()
    made.network.encoder(torch.randn(4, 1, 8, 8) + 3)
    moved = bool(made.network.encoder.running_mean.abs() > 0)
    assert moved is not frozen
