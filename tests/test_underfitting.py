"""Pretended under-fitting: the formulas by hand, the step they are part of, and two processes."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import destroy_process_group, init_process_group
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
    image, mask, weight = batch()
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
        made = module(weighting=weighting, underfit=PretendedUnderfitting("clamp", beta, 0.4))
        assert made.training_step(batch(), 0).item() == pytest.approx(expected)


# Four images of four pixels: losses .018, .127, .798 and 1.463, weights 1, 1, .2 and .4. Their mean is .342;
# that of the last two alone is 1.24, and what they add to the mean .287.
IMAGE = torch.tensor([2.0, 1.0, 0.1, 0.6]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
MASK = torch.tensor([0, 0, 1, 1]).reshape(4, 1, 1).expand(4, 2, 2)
WEIGHT = torch.tensor([255, 255, 51, 102], dtype=torch.uint8).reshape(4, 1, 1).expand(4, 2, 2)
BETAS = (0.8, 0.3)


def gradients(part: slice, processes: int) -> Tensor:
    """The gradient of the weights for each beta, of a step on a part of the images."""
    made = []
    for beta in BETAS:
        step: Any = module(underfit=PretendedUnderfitting("ignore", beta, 0.5))
        step._trainer.world_size = processes
        head = step.network.head
        with torch.no_grad():
            head.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
            head.bias.zero_()
        step.training_step([IMAGE[part], MASK[part], WEIGHT[part]], 0).backward()
        made.append(head.weight.grad)
    return torch.stack(made)


def gradients_of_half(rank: int, folder: Path) -> Tensor:
    """What one of two processes computes on its two images; they meet in a folder."""
    store = f"file://{folder}/store"
    init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=90))
    try:
        return gradients(slice(2 * rank, 2 * rank + 2), 2)
    finally:
        destroy_process_group()


def test_two_processes_decide_by_their_common_mean(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, __file__, str(tmp_path)], env=environment) as other:
        mine = gradients_of_half(0, tmp_path)
    assert other.returncode == 0
    averaged = (mine + torch.load(tmp_path / "other.pt", weights_only=True)) / 2
    whole = gradients(slice(0, 4), 1)
    torch.testing.assert_close(averaged, whole)
    assert not torch.allclose(whole[0], whole[1])  # the last image is ignored below .8, not below .3


if __name__ == "__main__":
    meeting_place = Path(sys.argv[1])
    torch.save(gradients_of_half(1, meeting_place), meeting_place / "other.pt")
