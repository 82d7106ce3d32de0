"""Pooling of maps to scores, by hand and against its definition in float64."""

import math

import pytest
import torch

from ome.networks.pooling import pool_maps
from ome.training.seam_losses import multilabel_loss, seam_loss


def test_by_hand() -> None:
    """log((exp(0) + exp(0) + exp(log 2) + exp(log 4)) / 4) = log 2."""
    maps = torch.tensor([[0.0, 0.0], [math.log(2), math.log(4)]])
    assert float(pool_maps(maps, 1.0)) == pytest.approx(math.log(2))
    assert float(pool_maps(maps)) == pytest.approx(math.log(8) / 4)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 5.0])
def test_equals_its_definition(sharpness: float) -> None:
    maps = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = (sharpness * maps.double()).exp().mean((2, 3)).log() / sharpness
    torch.testing.assert_close(pool_maps(maps, sharpness).double(), expected, rtol=1e-5, atol=1e-5)


def test_lies_between_mean_and_maximum_and_rises() -> None:
    maps = torch.randn(4, 9, 9, generator=torch.Generator().manual_seed(1))
    scores = torch.stack([pool_maps(maps, r) for r in (0.0, 1e-3, 1.0, 10.0, 1e4)])
    assert (scores.diff(dim=0) > -1e-5).all()
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-2)
    torch.testing.assert_close(scores[-1], maps.amax((1, 2)), rtol=0, atol=1e-2)


def test_large_responses_stay_finite() -> None:
    maps = torch.tensor([[[1e4, -1e4], [0.0, 0.0]]], requires_grad=True)
    score = pool_maps(maps, 5.0)
    assert float(score.detach()) == pytest.approx(1e4, rel=1e-3)
    score.sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_the_loss_pools_as_sharp_as_it_is_told() -> None:
    maps, tags = torch.randn(2, 3, 4, 4), torch.tensor([[1, 0, 1], [0, 1, 0]])
    none = {"er_weight": 0.0, "ecr_weight": 0.0, "min_pool_weight": 0.0}
    loss = seam_loss((maps, maps), None, tags, sharpness=2.0, **none)
    assert torch.equal(loss.total, multilabel_loss(pool_maps(maps, 2.0), tags))
