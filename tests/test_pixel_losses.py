"""The segmenter's losses, beside loops that follow the formulas and examples worked by hand."""

import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import MULTICLASS_MODE, LovaszLoss
from torch import Tensor

from ome.training.pixel_losses import (
    balanced_class_weights,
    hardest_pixels,
    lovasz_softmax,
    overlap_loss,
    pixel_cross_entropy,
    pixel_weights,
    weigh_pixels,
)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (2, 3, 4, 5), targets with a row of 255, stored weights."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, 0] = 255
    weight = torch.randint(0, 256, (2, 4, 5), generator=generator).to(torch.uint8)
    return logits, target, weight


@pytest.mark.parametrize(
    ("mode", "expected"), [("none", [1, 1, 1, 1]), ("threshold", [0.05, 0.05, 1, 1]), ("continuous", None)]
)
def test_pixel_weights(mode: str, expected: list[float] | None) -> None:
    stored = torch.tensor([[[0, 12, 13, 255]]], dtype=torch.uint8)
    weights = pixel_weights(stored, mode)  # type: ignore[arg-type]
    factors = [value / 255 for value in (0, 12, 13, 255)] if expected is None else expected
    torch.testing.assert_close(weights, torch.tensor([[factors]], dtype=torch.float32))


def test_unknown_weighting_is_refused() -> None:
    with pytest.raises(ValueError, match="'linear' is none of"):
        pixel_weights(torch.zeros(1, 1, 1, dtype=torch.uint8), "linear")  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_of_each_pixel_is_the_formula(smoothing: float) -> None:
    logits, target, _ = batch()
    entropy = pixel_cross_entropy(logits, target.to(torch.uint8), smoothing)
    for b, y, x in np.ndindex(2, 4, 5):
        scores = np.exp(logits[b, :, y, x].numpy())
        of_class = -np.log(scores / scores.sum())
        true = int(target[b, y, x])
        smoothed = 0.0 if true == 255 else (1 - smoothing) * of_class[true] + smoothing * of_class.mean()
        assert entropy[b, y, x].item() == pytest.approx(smoothed, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("mode", "factor", "divisor"),
    [
        ("none", [2, 1, 0, 0.5], [2, 1, 0, 0.5]),
        ("continuous", [2, 0.2, 0, 0], [2, 0.2, 0, 0]),
        # The mean over all pixels: a doubtful pixel has a small factor and a whole share.
        ("threshold", [2, 1, 0, 0.025], [2, 1, 0, 0.5]),
    ],
)
def test_weights_of_certainty_and_class_multiply(
    mode: str, factor: list[float], divisor: list[float]
) -> None:
    target = torch.tensor([[[0, 1, 255, 2]]])
    weight = torch.tensor([[[255, 51, 255, 0]]], dtype=torch.uint8)
    pixels = weigh_pixels(target, weight, mode, torch.tensor([2.0, 1.0, 0.5]))  # type: ignore[arg-type]
    torch.testing.assert_close(pixels.factor, torch.tensor([[factor]], dtype=torch.float32))
    torch.testing.assert_close(pixels.normaliser, torch.tensor([[divisor]], dtype=torch.float32))


def test_class_weights_give_the_weighted_mean_of_torch() -> None:
    logits, target, _ = batch()
    weights = torch.tensor([0.2, 1.0, 3.0])
    pixels = weigh_pixels(target, torch.full_like(target, 255), "continuous", weights)
    loss = (pixel_cross_entropy(logits, target) * pixels.factor).sum() / pixels.normaliser.sum()
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(logits.float(), target, weights, ignore_index=255)
    )


def test_balanced_weights_by_hand() -> None:
    # 120 pixels, three classes that occur: each counts 40 in sum.
    assert balanced_class_weights([10, 30, 0, 80]) == pytest.approx([4, 4 / 3, 1, 0.5])
    # Square roots 2, 4, 6 of 4, 16, 36 pixels: each pixel counts 56 / 12 over the root of its class.
    assert balanced_class_weights([4, 16, 0, 36], 0.5) == pytest.approx([7 / 3, 7 / 6, 1, 7 / 9])
    assert balanced_class_weights([0, 0]) == [1, 1]


def test_hardest_pixels_by_hand() -> None:
    loss = torch.tensor([[[0.1, 0.9, 5.0, 0.4, 0.9]]])
    eligible = torch.tensor([[[True, True, False, True, True]]])
    places = {
        fraction: hardest_pixels(loss, eligible, fraction).flatten().nonzero().flatten().tolist()
        for fraction in (0.01, 0.5, 0.51, 0.75, 1.0)
    }
    # One of four is 0.9, and so is the other that is as hard.
    assert places == {0.01: [1, 4], 0.5: [1, 4], 0.51: [1, 3, 4], 0.75: [1, 3, 4], 1.0: [0, 1, 3, 4]}
    assert not hardest_pixels(loss, torch.zeros_like(eligible), 0.5).any()


def test_hardest_pixels_are_those_of_a_sort() -> None:
    loss = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(2))
    eligible = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(3)) > 0.4
    hardest = hardest_pixels(loss, eligible, 0.3).numpy()
    values = np.sort(loss.numpy()[eligible.numpy()])[::-1]
    expected = values[: int(np.ceil(0.3 * len(values)))]
    np.testing.assert_array_equal(np.sort(loss.numpy()[hardest])[::-1], expected)


def overlap_example() -> tuple[Tensor, Tensor, Tensor]:
    """Three pixels that count, then one of 255 and one without weight."""
    second = torch.tensor([0.25, 0.5, 0.75, 0.9, 0.1])
    logits = torch.stack([1 - second, second]).log()[None, :, None]
    return logits, torch.tensor([[[0, 1, 1, 255, 1]]]), torch.tensor([[[0.1, 1.0, 0.5, 0.0, 0.0]]])


@pytest.mark.parametrize(("dice", "lovasz"), [(1, 0), (0, 1), (2, 0.5)])
def test_dice_and_lovasz_by_hand(dice: float, lovasz: float) -> None:
    # Dice of the first class: 2 * .75 / (1.5 + 1); of the second: 2 * 1.25 / (1.5 + 2).
    # Lovasz of the first: errors .5, .25, .25 in descending order, of which the first one, two and three have
    # Jaccard losses 1/2, 2/3 and 1: .5 * 1/2 + .25 * 1/6 + .25 * 1/3. The second class has the same.
    expected = dice * (1 - (0.6 + 2.5 / 3.5) / 2) + lovasz * 0.375
    loss = overlap_loss(*overlap_example(), dice=dice, lovasz=lovasz).item()
    assert loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_lovasz_is_that_of_the_library_with_its_gradient(ignored: float) -> None:
    generator = torch.Generator().manual_seed(7)
    logits = (3 * torch.randn(2, 4, 9, 8, generator=generator)).requires_grad_()
    target = torch.randint(0, 3, (2, 9, 8), generator=generator)  # the fourth class has no pixel
    target[torch.rand(2, 9, 8, generator=generator) < ignored] = 255
    expected = LovaszLoss(MULTICLASS_MODE, ignore_index=255)(logits, target)
    (gradient,) = torch.autograd.grad(expected, logits)
    of_device = lovasz_softmax(logits.softmax(dim=1).transpose(0, 1).flatten(1), target.flatten())
    of_cpu = overlap_loss(logits, target, (target != 255).float(), dice=0, lovasz=1)
    for loss in (of_device, of_cpu):
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], gradient, rtol=1e-4, atol=1e-7)


def test_pixels_without_weight_give_no_loss() -> None:
    logits, target, factor = overlap_example()
    logits = logits.detach().requires_grad_()
    nothing = overlap_loss(logits, target, factor * 0, dice=1, lovasz=1)
    nothing.backward()
    assert nothing.shape == ()
    assert nothing.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
