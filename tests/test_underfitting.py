"""Pretended under-fitting: the formulas by hand, and the step they are part of."""

import pytest
import torch
from torch.nn import functional as F

from ome.errors import UserError
from ome.training.underfitting import PretendedUnderfitting
from tests.test_training import batch, module

LOSSES = (0.04, 0.25, 0.49, 0.81, 4.0, 0.0)  # the last pixel is ignored


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", LOSSES),
        ("pow", (0.2, 0.5, 0.7, 0.9, 2.0, 0.0)),
        ("clamp", (0.04, 0.25, 0.49, 0.5, 0.5, 0.0)),
        ("ignore", (0.04, 0.25, 0.49, 0.0, 0.0, 0.0)),
    ],
)
def test_modes_by_hand(mode: str, expected: tuple[float, ...]) -> None:
    underfit = PretendedUnderfitting(mode, beta=1.2, k=0.5)  # type: ignore[arg-type]
    losses = torch.tensor(LOSSES)
    torch.testing.assert_close(underfit(losses, torch.tensor(1.19)), torch.tensor(expected))
    torch.testing.assert_close(underfit(losses, torch.tensor(1.2)), losses)


def test_gradients_by_hand() -> None:
    def gradient(mode: str) -> list[float]:
        losses = torch.tensor([0.25, 4.0, 0.0], requires_grad=True)
        underfit = PretendedUnderfitting(mode, beta=9.0, k=0.5)  # type: ignore[arg-type]
        underfit(losses, torch.tensor(1.0)).sum().backward()
        assert losses.grad is not None
        return losses.grad.tolist()

    assert gradient("pow") == pytest.approx([1.0, 0.25, 0.0])  # half of one over the root
    assert gradient("clamp") == [1, 0, 1]
    assert gradient("ignore") == [1, 0, 1]


def test_constants_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match="underfit is power: choose one of none, pow, clamp, ignore"):
        PretendedUnderfitting("power")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="underfit_k is 0"):
        PretendedUnderfitting("clamp", k=0)


@pytest.mark.parametrize("weighting", ["none", "threshold", "continuous"])
def test_the_step_changes_weighted_losses_when_their_mean_is_low(weighting: str) -> None:
    image, mask, weight = batch().values()
    logits = module().network(image).permute(0, 2, 3, 1).reshape(6, 2)
    entropy = F.cross_entropy(logits, mask.flatten().clamp_max(1), reduction="none")
    scaled = weight.flatten() / 255
    factor = {
        "none": torch.ones(6),
        "threshold": torch.where(scaled <= 0.05, 0.05, 1.0),
        "continuous": scaled,
    }[weighting] * (mask.flatten() != 255)
    divisor = 5.0 if weighting == "threshold" else max(1.0, float(factor.sum()))
    losses = (entropy * factor).tolist()
    mean = sum(losses) / divisor
    clamped = sum(min(loss, 0.4) for loss in losses) / divisor
    assert clamped < mean
    for beta, expected in ((mean + 1e-3, clamped), (mean - 1e-3, mean)):
        learner = module(weighting=weighting, underfit=PretendedUnderfitting("clamp", beta, 0.4))
        assert learner.training_step(batch()).item() == pytest.approx(expected)
