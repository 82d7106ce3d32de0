"""SEAM's losses, beside loops that follow the formulas and examples worked by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ome.training.seam_losses import (
    cross_refinement_loss,
    min_pool_loss,
    multilabel_loss,
    normalise_maps,
    seam_loss,
)


def _views(requires_grad: bool = False) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(2, 2, 3, 16, 16, generator=generator)
    second = torch.randn(2, 2, 3, 8, 8, generator=generator)
    maps = [maps.clone().requires_grad_(requires_grad) for maps in (*first, *second)]
    return (maps[0], maps[1]), (maps[2], maps[3]), torch.tensor([[1, 0, 1], [0, 1, 1]])


def test_normalise_maps_by_hand() -> None:
    maps = torch.tensor([[[[-3.0, 1.0, 4.0, 5.0]], [[2.0, 2.0, 2.0, 2.0]]]])
    expected = torch.tensor([[[[0.0, 0.2, 0.8, 1.0]], [[0.0, 0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(normalise_maps(maps), expected, atol=1e-5, rtol=0)
    # 1 / EPSILON is no float16, which maps may be.
    torch.testing.assert_close(normalise_maps(maps.half()).float(), expected, atol=1e-3, rtol=0)


def test_multilabel_loss_is_binary_cross_entropy_of_the_pooled_map() -> None:
    cam = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    tags = np.array([[1, 0, 0], [1, 1, 0]])
    probability = 1 / (1 + np.exp(-cam.numpy().mean(axis=(2, 3))))
    expected = -np.where(tags == 1, np.log(probability), np.log(1 - probability)).mean()
    loss = multilabel_loss(cam.mean(dim=(2, 3)), torch.from_numpy(tags))
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("views", [1, 2])
def test_classes_that_are_not_learnt_have_no_loss(views: int) -> None:
    generator = torch.Generator().manual_seed(3)
    cam = torch.randn(2, 3, 5, 4, generator=generator, requires_grad=True)
    tags, learnt = torch.tensor([[1.0, 0, 1], [1, 1, 0]]), torch.tensor([[1.0, 1, 0], [0, 1, 1]])
    second = (cam, cam) if views == 2 else None
    loss = seam_loss((cam, cam), second, tags, learnt, er_weight=0, ecr_weight=0, min_pool_weight=0)
    loss.total.backward()
    pooled = cam.detach().mean(dim=(2, 3))
    of_each = -(tags * pooled.sigmoid().log() + (1 - tags) * (-pooled).sigmoid().log())
    assert loss.total.item() == pytest.approx(float((of_each * learnt).sum() / 6), abs=1e-6)
    assert cam.grad is not None
    assert torch.equal(cam.grad.abs().sum((2, 3)) > 0, learnt > 0)


def test_min_pool_by_hand() -> None:
    first = [[0.5, -1.0, 0.1, 0.9, 2.0, 2.0], [0.4, -0.2, 0.8, 0.3, 2.0, 2.0]]
    second = [[0.7, -2.0, 0.2, 0.4, 2.0, 2.0], [0.6, -0.1, 0.3, 0.5, 2.0, 2.0]]
    refined = torch.tensor([[first, second]])
    # A quarter of twelve pixels is three; the smallest maxima are -1, -.1 and .2, of which the ReLU keeps .2.
    assert min_pool_loss(refined, torch.tensor([[1, 1]])).item() == pytest.approx(0.2 / 3)
    # Raised by 1.05 they are .05, .95 and 1.25.
    assert min_pool_loss(refined + 1.05, torch.tensor([[1, 1]])).item() == pytest.approx(0.75)
    # Without the second class they are .05, .85 and 1.15.
    assert min_pool_loss(refined + 1.05, torch.tensor([[1, 0]])).item() == pytest.approx(2.05 / 3)


def test_cross_refinement_by_hand() -> None:
    cam = torch.tensor([[[[0.9, 0.1, 0.0, 0.0, 0.0]], [[0.8, 0.6, 0.0, 0.0, 0.0]]]], requires_grad=True)
    refined = torch.zeros(1, 2, 1, 5, requires_grad=True)
    # Targets keep .9 and .6; the largest int(.2 * 10) = 2 differences are those.
    loss = cross_refinement_loss(refined, cam)
    assert loss.item() == pytest.approx(0.75)
    loss.backward()
    assert cam.grad is None
    assert refined.grad is not None


def test_switches_leave_terms_out_of_the_total() -> None:
    view1, view2, tags = _views(requires_grad=True)
    loss = seam_loss(view1, view2, tags)
    assert loss.total.item() == pytest.approx((loss.classification + loss.er + loss.ecr).item())
    halved = seam_loss(view1, view2, tags, er_weight=0.5, ecr_weight=2.0, min_pool_weight=3.0)
    expected = loss.multilabel + 3 * loss.min_pool + 0.5 * loss.er + 2 * loss.ecr
    assert halved.total.item() == pytest.approx(expected.item())
    for off in ("er", "ecr", "min_pool"):
        others = seam_loss(view1, view2, tags, **{f"{off}_weight": 0})  # type: ignore[arg-type]
        assert getattr(others, off).item() == 0
        expected = loss.total - getattr(loss, off)
        assert others.total.item() == pytest.approx(expected.item())
    none = seam_loss(view1, view2, tags, er_weight=0, ecr_weight=0, min_pool_weight=0)
    assert none.total.item() == pytest.approx(loss.multilabel.item())


def test_one_view_has_the_terms_of_that_view() -> None:
    view1, _, tags = _views()
    loss = seam_loss(view1, None, tags, er_weight=0, ecr_weight=0)
    assert loss.multilabel.item() == multilabel_loss(view1[0].mean(dim=(2, 3)), tags).item()
    assert loss.min_pool.item() == min_pool_loss(view1[1], tags).item()
    assert loss.total.item() == (loss.multilabel + loss.min_pool).item()
    for weights in ({"er_weight": 0.0}, {"ecr_weight": 0.0}):
        with pytest.raises(ValueError, match="compare two views"):
            seam_loss(view1, None, tags, **weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "view",
    [(torch.ones(2, 3, 8, 8), torch.ones(2, 3, 7, 7)), (torch.ones(2, 4, 8, 8),) * 2, torch.ones(2, 3, 8, 8)],
)
def test_maps_that_do_not_fit_are_named(view: tuple[Tensor, Tensor]) -> None:
    """Another size, a background class, and the CAM alone."""
    with pytest.raises(ValueError, match=r"a view is the raw and the refined CAM, both \(B, C, H, W\) with"):
        seam_loss(view, None, torch.ones(2, 3), er_weight=0, ecr_weight=0)


@pytest.mark.parametrize(
    ("place", "line"),
    [(0, "are tensors"), (1, "are tensors"), (2, "are tensors"), (3, r"with \[\(2, 3\), \(2, 2\)\]")],
)
def test_arrays_in_place_of_tensors_and_other_classes_to_learn_are_named(place: int, line: str) -> None:
    view1, view2, tags = _views()
    given: list[Any] = [view1, view2, tags, tags[:, :2]]
    if place < 2:
        given[place] = [maps.detach().numpy() for maps in given[place]]
    elif place == 2:
        given[place] = tags.numpy()
    with pytest.raises(ValueError, match=line):
        seam_loss(*given[: max(3, place + 1)])


@pytest.mark.parametrize("side", [1, 2, 4])
def test_the_losses_of_maps_of_few_pixels_are_numbers(side: int) -> None:
    """A quarter of the pixels, and a fifth of the differences, are at least one."""
    small, smaller = torch.rand(2, 3, side, side), torch.rand(2, 3, max(1, side // 2), max(1, side // 2))
    losses = seam_loss((small, small), (smaller, smaller), torch.tensor([[1.0, 0, 1], [0, 1, 1]]))
    assert all(one.isfinite() for one in losses)


def test_absent_classes_do_not_regularise() -> None:
    view1, view2, tags = _views()
    changed = view1[0].clone()
    changed[0, 1] += torch.rand(16, 16)
    loss, other = seam_loss(view1, view2, tags), seam_loss((changed, view1[1]), view2, tags)
    assert loss.er.item() == other.er.item()
    assert loss.ecr.item() == other.ecr.item()
    assert loss.classification.item() != other.classification.item()


def _plain_total(view1: tuple[Tensor, Tensor], view2: tuple[Tensor, Tensor], tags: Tensor) -> Tensor:
    """SEAM's loss with weights 2, 3 and 5 (ER, ECR, min-pool), view by view as the paper writes it."""

    def present(maps: Tensor) -> Tensor:
        clipped = maps.relu()
        low, high = clipped.amin((2, 3), keepdim=True), clipped.amax((2, 3), keepdim=True)
        scaled = (clipped - low - 1e-5).relu() / (high - low + 1e-5)
        small = F.interpolate(scaled, view2[0].shape[2:], mode="bilinear", align_corners=True)
        return small * tags[:, :, None, None]

    views = (view1, view2)
    views = (view1, view2)
    cams, refined = ([present(view[place]) for view in views] for place in (0, 1))
    pooled = [(cam.mean(dim=(2, 3)), maps) for cam, maps in views]
    terms = [multilabel_loss(means, tags) + 5 * min_pool_loss(maps, tags) for means, maps in pooled]
    classification = sum(terms) / 2
    ecr = sum(cross_refinement_loss(refined[number], cams[1 - number]) for number in (0, 1))
    return classification + 2 * (cams[0] - cams[1]).abs().mean() + 3 * ecr


def test_views_that_are_computed_together_have_the_losses_and_gradients_of_each() -> None:
    results = []
    for total in (
        _plain_total,
        lambda *tensors: seam_loss(*tensors, er_weight=2, ecr_weight=3, min_pool_weight=5).total,
    ):
        generator = torch.Generator().manual_seed(5)
        sides = (16, 16, 8, 8)
        maps = [torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64) for side in sides]
        maps[0][0, 1] = -maps[0][0, 1].abs()  # nothing of it is left
        maps[2][1, 2] += 9  # all of it is left
        maps = [part.requires_grad_() for part in maps]
        loss = total((maps[0], maps[1]), (maps[2], maps[3]), torch.tensor([[1.0, 1, 0], [0, 1, 1]]))
        results.append([loss, *torch.autograd.grad(loss, maps)])
    for plain, together in zip(*results, strict=True):
        torch.testing.assert_close(together, plain, rtol=1e-12, atol=1e-14)
