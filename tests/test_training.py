"""What the Lightning modules add to the losses: the schedule, what is frozen, and the divisor."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.data.datasets import Batch
from ome.training.pixel_losses import overlap_loss
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

    def with_auxiliary(self, image: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
        return self(image), head(image)


def module(**settings: Any) -> UncertaintyWeightedSegmenter:  # noqa: ANN401
    torch.manual_seed(0)
    made = UncertaintyWeightedSegmenter(Pixelwise(), total_steps=10, **settings)
    made.log = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
    return made


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 1, 2, 3, generator=generator)
    mask = torch.tensor([[[0, 1, 255], [1, 0, 1]]])
    weight = torch.tensor([[[255, 51, 255], [0, 102, 10]]], dtype=torch.uint8)
    return {"image": image, "mask": mask, "weight": weight}


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
    image, mask, _ = batch().values()
    logits = made.network(image).permute(0, 2, 3, 1).reshape(6, 2)
    target = mask.flatten().clamp_max(1)
    entropy = F.cross_entropy(logits, target, reduction="none")
    divisor = 5.0 if weighting == "threshold" else max(1.0, sum(weights))
    expected = (entropy * torch.tensor(weights)).sum() / divisor
    torch.testing.assert_close(made.training_step(batch(), 0), expected)


@pytest.mark.parametrize(
    ("weighting", "loss", "gradient"),
    [
        ("none", "0x1.55fee40000000p-1", 0.017030414193868637),
        ("continuous", "0x1.a011ec0000000p-1", -0.1828814148902893),
        ("threshold", "0x1.c2f1fa0000000p-2", -0.013827585615217686),
    ],
)
def test_without_options_the_loss_is_what_it_was_before_there_were_any(
    weighting: str, loss: str, gradient: float
) -> None:
    made = module(weighting=weighting)
    computed = made.training_step(batch(), 0)
    computed.backward()
    assert computed.item() == pytest.approx(float.fromhex(loss), rel=1e-6)
    assert made.network.head.weight.grad[0].item() == pytest.approx(gradient, rel=1e-5)
    assert made.auxiliary is None


def entropies(head: nn.Module) -> Tensor:
    """Cross-entropy of the six pixels of `batch`, as if none were ignored."""
    image, mask, _ = batch().values()
    logits = head(image).permute(0, 2, 3, 1).reshape(6, 2)
    return F.cross_entropy(logits, mask.flatten().clamp_max(1), reduction="none")


def test_the_auxiliary_loss_has_the_weights_and_the_divisor_of_the_main_one() -> None:
    made = module(auxiliary=nn.Conv2d(1, 2, 1), auxiliary_weight=0.4)
    weights = torch.tensor([1, 0.2, 0, 0, 0.4, 10 / 255])
    entropy = entropies(made.network.head) + 0.4 * entropies(made.auxiliary)
    expected = (entropy * weights).sum() / weights.sum()
    torch.testing.assert_close(made.training_step(batch(), 0), expected)


def test_the_hardest_pixels_are_divided_by_their_own_weights() -> None:
    made = module(ohem=0.5)
    weights = torch.tensor([1, 0.2, 0, 0, 0.4, 10 / 255])
    loss = entropies(made.network.head) * weights
    # Four pixels have weight; half of them are two.
    kept = loss.argsort(descending=True)[:2]
    expected = loss[kept].sum() / weights[kept].sum().clamp_min(1)
    torch.testing.assert_close(made.training_step(batch(), 0), expected)


def test_overlap_losses_are_added_to_the_mean() -> None:
    image, mask, weight = batch().values()
    plain, both = module().training_step(batch(), 0), module(dice=0.5, lovasz=2).training_step(batch(), 0)
    added = overlap_loss(module().network(image), mask, weight, dice=0.5, lovasz=2)
    torch.testing.assert_close(both, plain + added)


def test_the_head_learns_faster_and_norms_do_not_decay_when_asked() -> None:
    network = nn.Module()
    network.encoder = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    network.head = nn.Sequential(nn.GroupNorm(1, 2), nn.Conv2d(2, 2, 1))
    auxiliary = nn.Conv2d(2, 2, 1)
    settings: Any = {"total_steps": 10, "lr": 0.1, "weight_decay": 0.01, "auxiliary": auxiliary}

    def groups(**more: Any) -> list[tuple[float, float, int]]:  # noqa: ANN401
        made: Any = UncertaintyWeightedSegmenter(network, **settings, **more).configure_optimizers()
        found = made["optimizer"].param_groups
        return [(group["initial_lr"], group["weight_decay"], len(group["params"])) for group in found]

    assert groups() == [(0.1, 0.01, 10)]
    assert groups(optimizer="adamw", head_lr=10.0, norm_decay=False) == [
        (0.1, 0.01, 2),
        (0.1, 0.0, 2),
        (1.0, 0.0, 2),
        (1.0, 0.01, 4),
    ]


def test_warm_up_leads_to_the_schedule() -> None:
    made = module(lr=0.5, minimum_lr=0.1, power=1.0, warmup_steps=4, head_lr=10.0)
    configured: Any = made.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    rise = [min(1, step / 4) for step in range(10)]
    decay = [1 - step / 10 for step in range(10)]
    # Both end at the minimum, however high they start.
    expected = [[u * (0.1 + 0.4 * d), u * (0.1 + 4.9 * d)] for u, d in zip(rise, decay, strict=True)]
    assert np.array(rates) == pytest.approx(np.array(expected), abs=1e-5)


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
