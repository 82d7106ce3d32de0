"""CAM fusion beside hand-worked cases and a loop over tiles."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ome.pseudo.fusion import competing_cams, multi_scale_cams, normalise_cam


def lopsided_cam(images: Tensor) -> Tensor:
    """A CAM of 4 classes that depends on place and neighbours, so that flips and scales matter."""
    ramp = torch.linspace(-1, 1, images.shape[-1], dtype=images.dtype)
    red, green, blue = images.unbind(1)
    shifted = torch.nn.functional.pad(red, (1, 0))[..., :-1]
    return torch.stack([red * ramp, green - blue, shifted * green, blue + ramp], 1)


def test_by_hand() -> None:
    maps = torch.tensor([[[[1.0, -4.0, 3.0]], [[9.0, 9.0, 9.0]]], [[[0.0, 1.0, 1.0]], [[9.0, 9.0, 9.0]]]])
    fused = normalise_cam(maps.sum(0), torch.tensor([1, 0]))
    expected = torch.tensor([[[1 / 4.00001, 0.0, 4 / 4.00001]], [[0.0, 0.0, 0.0]]])
    torch.testing.assert_close(fused, expected)


def test_classes_compete_by_hand() -> None:
    """Two tagged classes and one that is not; the largest response among the tags, 4, is the temperature."""
    total = torch.tensor([[4.0, 2.0, -1.0], [1.0, 3.0, 2.0], [9.0, 9.0, 9.0]])[:, None]
    competing = competing_cams(total, torch.tensor([1, 1, 0]))[:, 0].tolist()
    first = [1 / (1 + math.exp((other - one) / 4)) for one, other in ((4, 1), (2, 3), (-1, 2))]
    floored = [(value + 0.1) / 1.1 for value in (1, 0.5, 0)]
    expected = [floored[0] * first[0], floored[1] * first[1], floored[2] * first[2]]
    assert competing[0] == pytest.approx(expected, abs=1e-5)
    expected = [floored[2] * (1 - first[0]), floored[0] * (1 - first[1]), floored[1] * (1 - first[2])]
    assert competing[1] == pytest.approx(expected, abs=1e-5)
    assert competing[2] == [0, 0, 0]


@pytest.mark.parametrize("shift", [0.0, -9.0], ids=["somewhere", "in the whole tile"])
def test_where_no_tagged_class_responds_the_least_negative_one_is_the_strongest(shift: float) -> None:
    total = torch.tensor([[9.0, -4.0, -1.0], [1.0, -1.0, -3.0], [9.0, 9.0, 9.0]])[:, None] + shift
    competing = competing_cams(total, torch.tensor([1, 1, 0]))[:, 0]
    assert competing.argmax(0).tolist() == [0, 1, 0]
    assert not competing[2].any()
    first = competing[0] / competing.sum(0)
    assert 0.1 < first[1] < 0.5 < first[2] < 0.9


def test_competition_depends_neither_on_the_scale_nor_on_other_tiles() -> None:
    total = torch.randn(3, 4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    tags = torch.tensor([[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    competing = competing_cams(total, tags)
    torch.testing.assert_close(competing_cams(8 * total, tags), competing, atol=1e-4, rtol=1e-4)
    for each, tag, alone in zip(total, tags, competing, strict=True):
        torch.testing.assert_close(competing_cams(each, tag), alone)
    # A single tag has no competitor.
    torch.testing.assert_close(competing[1, 2], (normalise_cam(total[1], tags[1])[2] + 0.1) / 1.1)
    assert not competing[2].any()


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("compete", [True, False])
def test_a_batch_equals_a_loop_over_tiles(flip: bool, compete: bool) -> None:
    images = torch.rand(3, 3, 15, 22, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tags = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 1, 0]])
    together = multi_scale_cams(lopsided_cam, images, tags, flip=flip, compete=compete)
    assert together.shape == (3, 4, 15, 22)
    for image, tag, fused in zip(images, tags, together, strict=True):
        torch.testing.assert_close(
            multi_scale_cams(lopsided_cam, image[None], tag[None], flip=flip, compete=compete)[0], fused
        )


def test_a_forward_pass_is_no_larger_than_asked() -> None:
    images = torch.rand(3, 3, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    tags = torch.ones(3, 4)
    shapes = []

    def recorded(views: torch.Tensor) -> torch.Tensor:
        shapes.append((len(views), views.shape[2]))
        return lopsided_cam(views)

    fused = multi_scale_cams(recorded, images, tags, pixels=320)
    # Six views of 4 x 5, 8 x 10, 12 x 15 and 16 x 20 pixels.
    assert shapes == [(6, 4), (4, 8), (2, 8), *[(1, 12)] * 6, *[(1, 16)] * 6]
    torch.testing.assert_close(fused, multi_scale_cams(lopsided_cam, images, tags))


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("flip", [True, False])
def test_the_memory_is_that_of_the_maps_of_the_tiles_and_of_a_forward_pass(flip: bool) -> None:
    images, tags = torch.rand(12, 3, 8, 10), torch.ones(12, 40)
    pixels = images[:, 0].numel()
    with Largest() as largest:
        multi_scale_cams(
            lambda views: views.repeat(1, 14, 1, 1)[:, :40], images, tags, flip=flip, pixels=pixels
        )
    assert largest.elements <= 42 * pixels * (2 if flip else 1)


def test_a_silent_tile_is_undecided_between_its_tags() -> None:
    images, tags = torch.rand(2, 3, 6, 5), torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]])

    def silent_first(views: torch.Tensor) -> torch.Tensor:
        maps = lopsided_cam(views)
        return torch.where(torch.arange(len(views))[:, None, None, None] % 2 == 0, -maps.abs(), maps.abs())

    fused = multi_scale_cams(silent_first, images, tags)
    torch.testing.assert_close(fused[0], tags[0].float()[:, None, None].expand(4, 6, 5))
    responding = multi_scale_cams(lambda views: lopsided_cam(views).abs(), images[1:], tags[1:])
    torch.testing.assert_close(fused[1], responding[0])
    assert fused[1, 1].min() == 0


def test_steps_one_by_one() -> None:
    images = torch.rand(1, 3, 15, 22, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tags = torch.tensor([[1, 1, 0, 1]])
    maps = []
    for size in [(8, 11), (15, 22), (22, 33), (30, 44)]:  # .5, 1, 1.5, 2 times 15 x 22; halves go to even
        for mirrored in (False, True):
            view = torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
            view = view.flip(-1) if mirrored else view
            cam = lopsided_cam(view)
            cam = torch.nn.functional.interpolate(cam, (15, 22), mode="bilinear", align_corners=False)
            maps.append(cam[0].flip(-1) if mirrored else cam[0])
    torch.testing.assert_close(
        multi_scale_cams(lopsided_cam, images, tags)[0], normalise_cam(torch.stack(maps).sum(0), tags[0])
    )


def test_flipping_makes_the_fusion_symmetric() -> None:
    images = torch.rand(2, 3, 16, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    tags = torch.ones(2, 4)
    mirrored = multi_scale_cams(lopsided_cam, images.flip(-1), tags).flip(-1)
    torch.testing.assert_close(mirrored, multi_scale_cams(lopsided_cam, images, tags))


def test_ill_formed_arguments_are_refused() -> None:
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="do not fit"):
        multi_scale_cams(lopsided_cam, images, torch.ones(2, 5))
    with pytest.raises(ValueError, match="at least one scale"):
        multi_scale_cams(lopsided_cam, images, torch.ones(2, 4), scales=())
