"""Pooling of maps to scores, by hand and against loops."""

import math

import numpy as np
import pytest
import torch

from ome.networks.pooling import Pooling, pool_maps
from ome.training.seam_losses import multilabel_loss, seam_loss


def test_by_hand() -> None:
    """Each of two classes wins one of two cells with a probability of 3/4."""
    maps = torch.tensor([[[math.log(3), 0.0]], [[0.0, math.log(3)]]])
    winning, losing = 0.75 + 0.1, 0.25 + 0.1
    expected = winning * math.log(3) / (winning + losing)
    torch.testing.assert_close(pool_maps(maps, "competing"), torch.tensor([expected, expected]))
    torch.testing.assert_close(pool_maps(maps), torch.tensor([math.log(3) / 2] * 2))


def test_equals_a_loop_over_cells() -> None:
    maps = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    scores = pool_maps(maps, "competing")
    for image, of_image in zip(maps.double().numpy(), scores, strict=True):
        for label in range(3):
            total = weights = 0.0
            for y, x in np.ndindex(5, 4):
                weight = math.exp(image[label, y, x]) / sum(np.exp(image[:, y, x])) + 0.1
                total, weights = total + weight * image[label, y, x], weights + weight
            assert float(of_image[label]) == pytest.approx(total / weights, rel=1e-5, abs=1e-6)


def test_one_class_has_none_to_compete_with() -> None:
    maps = torch.randn(4, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pool_maps(maps, "competing"), pool_maps(maps))


def test_a_class_is_scored_where_it_wins() -> None:
    """A car on 2 of 100 cells: its score follows the car; that of an absent class stays low everywhere."""
    maps = torch.full((3, 10, 10), -4.0)
    maps[0] = 4.0
    maps[:2, 0, :2] = torch.tensor([[-4.0], [6.0]])
    road, car, absent = pool_maps(maps, "competing").tolist()
    assert road > 3.5
    assert absent == pytest.approx(-4.0)
    assert car > float(maps[1].mean()) + 1.0


def test_the_gradient_is_that_of_the_score() -> None:
    maps = torch.randn(1, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda x: pool_maps(x, "competing"), maps.requires_grad_())


def test_large_responses_stay_finite() -> None:
    maps = torch.tensor([[[1e4, -1e4]], [[0.0, 0.0]]], requires_grad=True)
    scores = pool_maps(maps, "competing")
    assert scores.isfinite().all()
    scores.sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("pooling", ["mean", "competing"])
def test_the_loss_pools_as_it_is_told(pooling: Pooling) -> None:
    maps, tags = torch.randn(2, 3, 4, 4), torch.tensor([[1, 0, 1], [0, 1, 0]])
    none = {"er_weight": 0.0, "ecr_weight": 0.0, "min_pool_weight": 0.0}
    loss = seam_loss((maps, maps), None, tags, pooling=pooling, **none)
    assert torch.equal(loss.total, multilabel_loss(pool_maps(maps, pooling), tags))
