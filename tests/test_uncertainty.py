"""Response scaling beside hand-worked cases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ome.crf.densecrf import DenseCrf
from ome.errors import UserError
from ome.pseudo.argmax import strongest
from ome.pseudo.response import Normalisation, certainty_weight, response_variance, variance_of_votes
from ome.pseudo.uncertainty import RESPONSE_SCALES, Labelling, pseudo_label

GOLDEN = Path(__file__).parent / "golden"
Array = NDArray[Any]


class NoCrf:
    """Returns the maps unchanged, so that votes can be counted by hand, and counts runs."""

    def __init__(self) -> None:
        self.runs = 0

    def infer(self, probabilities: Array) -> Array:
        self.runs += 1
        return probabilities.astype(np.float32)

    def winners(self, probabilities: Array, powers: Array) -> Array:
        self.runs += len(powers)
        raised: Array = probabilities[None] ** powers[:, :, None, None]
        return raised.argmax(1).astype(np.uint8)


def one_row(*maps: list[float]) -> Array:
    return np.array(maps, np.float32)[:, None, :]


def test_votes_by_hand() -> None:
    # Powers of .25 at .5 .75 1 1.25 1.5 1.75: .5 .354 .25 .177 .125 .088.
    # Pixel 0: class 0 at .25 beats .3 at two scales: variance 2/6 * 4/6. Class 1 at .3 gives
    # .55 .41 .3 .22 .16 .12, beaten by .25 at the last three: 3/6 * 3/6. Pixel 1 is never in doubt.
    maps = one_row([0.25, 1.0], [0.3, 0.0])
    np.testing.assert_allclose(response_variance(NoCrf(), maps, RESPONSE_SCALES), [[0.25, 0.0]])
    # With .45 instead: class 0 wins at .5 only: 5/36. Class 1 falls below .25 at 1.75 (.247): 5/36.
    maps = one_row([0.25, 1.0], [0.45, 0.0])
    np.testing.assert_allclose(response_variance(NoCrf(), maps, RESPONSE_SCALES), [[5 / 36, 0.0]])


def test_weights_of_the_four_levels() -> None:
    variance = np.array([[0.0, 5 / 36, 8 / 36, 9 / 36]])
    for normalisation in ("tile", "absolute"):
        np.testing.assert_array_equal(certainty_weight(variance, normalisation), [[255, 113, 28, 0]])
    mild = variance[:, :2]
    np.testing.assert_array_equal(certainty_weight(mild, "tile"), [[255, 0]])
    np.testing.assert_array_equal(certainty_weight(mild, "absolute"), [[255, 113]])
    uncertain_everywhere = np.array([[5 / 36, 8 / 36, 9 / 36]])  # stretched to 0, 3/4, 1
    np.testing.assert_array_equal(certainty_weight(uncertain_everywhere, "tile"), [[255, 63, 0]])


@pytest.mark.parametrize("normalisation", ["tile", "absolute"])
@pytest.mark.parametrize(("variance", "weight"), [(0.0, 255), (5 / 36, 113), (0.25, 0)])
def test_a_tile_of_one_variance_is_as_certain_as_that(
    variance: float, weight: int, normalisation: Normalisation
) -> None:
    np.testing.assert_array_equal(certainty_weight(np.full((2, 2), variance), normalisation), weight)


@pytest.mark.parametrize("scales", [5, 6, 7, 10])
def test_votes_for_and_against_are_equally_uncertain(scales: int) -> None:
    """Rounding must not become the largest contrast of a tile."""
    votes = np.arange(scales + 1)
    variance = variance_of_votes([votes[None]], scales)
    np.testing.assert_array_equal(variance, variance[:, ::-1])
    np.testing.assert_allclose(variance[0], [np.var([1] * k + [0] * (scales - k)) for k in votes], atol=1e-15)
    pair = variance_of_votes([np.array([[1, scales - 1]])], scales)
    assert len(np.unique(certainty_weight(pair, "tile"))) == 1


def test_an_unknown_normalisation_is_named() -> None:
    with pytest.raises(ValueError, match='not "scene"'):
        certainty_weight(np.zeros((2, 2)), "scene")  # type: ignore[arg-type]


def test_a_single_class_is_certain_everywhere() -> None:
    crf = NoCrf()
    cam = np.zeros((5, 3, 4), np.float32)
    cam[2] = 0.5
    label = pseudo_label(crf, cam)
    np.testing.assert_array_equal(label.mask, 2)
    np.testing.assert_array_equal(label.weight, 255)
    assert {label.mask.dtype, label.weight.dtype, label.cam_argmax.dtype} == {np.dtype(np.uint8)}
    assert crf.runs == 1


def test_the_unscaled_run_is_shared_and_only_present_classes_run() -> None:
    crf = NoCrf()
    cam = np.zeros((6, 1, 3), np.float32)
    cam[[0, 2, 5], 0, [0, 1, 2]] = 1.0
    pseudo_label(crf, cam)
    assert crf.runs == 1 + 1 + 3 * 5


def test_scales_above_two_change_the_vote() -> None:
    # .9 raised to 4, 5, 6 is .656 .590 .531: class 0 beats .6 only once. .6 loses to .9 at any scale.
    maps = one_row([0.9, 1.0], [0.6, 0.0])
    variance = response_variance(NoCrf(), maps, (4.0, 5.0, 6.0))
    np.testing.assert_allclose(variance, [[2 / 9, 0.0]])


def test_a_background_map_takes_the_pixels_where_no_class_responds() -> None:
    # 1 - maximum: .1 .7 / 1 .5, to the power 4: .0001 .2401 / 1 .0625.
    cam = np.array([[[0.9, 0.2], [0.0, 0.5]], [[0.1, 0.3], [0.0, 0.5]]], np.float32)
    for mask in ("crf", "cam"):
        label = pseudo_label(NoCrf(), cam, Labelling(mask=mask, background=1.0))
        np.testing.assert_array_equal(label.mask, [[0, 255], [255, 0]])
        np.testing.assert_array_equal(label.cam_argmax, label.mask)
        np.testing.assert_allclose(label.probabilities[2], [[0.1, 0.7], [1.0, 0.5]], rtol=1e-6)
        label = pseudo_label(NoCrf(), cam, Labelling(mask=mask, background=4.0))
        np.testing.assert_array_equal(label.mask, [[0, 1], [255, 0]])
    # In the last pixel .5 for class 0 stands against .5 for the background: scaled, class 0 wins 3 of 6.
    label = pseudo_label(NoCrf(), cam, Labelling(normalisation="absolute", background=1.0))
    np.testing.assert_array_equal(label.weight, [[255, 255], [255, 0]])


def test_the_published_code_reads_the_background_first() -> None:
    cam = np.zeros((3, 1, 4), np.float32)  # of each pixel one class responds, and none of the last
    cam[[0, 1, 2], 0, [0, 1, 2]] = 1.0
    for mask in ("crf", "cam"):
        right = pseudo_label(NoCrf(), cam, Labelling(mask=mask, background=1.0))  # type: ignore[arg-type]
        wrong = pseudo_label(
            NoCrf(),
            cam,
            Labelling(mask=mask, background=1.0, background_read_first=True),  # type: ignore[arg-type]
        )
        np.testing.assert_array_equal(right.mask, [[0, 1, 2, 255]])
        np.testing.assert_array_equal(wrong.mask, [[255, 0, 1, 2]])
        np.testing.assert_array_equal(wrong.cam_argmax, wrong.mask)
        np.testing.assert_array_equal(wrong.weight, right.weight)
    # Without a background map there is nothing to misread.
    plain = pseudo_label(NoCrf(), cam, Labelling(background_read_first=True))
    np.testing.assert_array_equal(plain.mask[0, :3], [0, 1, 2])


def test_a_background_map_goes_through_the_crf_as_one_more_class() -> None:
    golden = np.load(GOLDEN / "uncertainty_a.npz", allow_pickle=False)
    cam, crf = golden["cam"].astype(np.float32), DenseCrf(golden["image"])
    label = pseudo_label(crf, cam, Labelling(background=2.0))
    expected = crf.infer(np.concatenate([cam, (1 - cam.max(0, keepdims=True)).clip(0) ** 2])).argmax(0)
    assert 0 < (expected == len(cam)).mean() < 1
    np.testing.assert_array_equal(label.mask == 255, expected == len(cam))
    np.testing.assert_array_equal(label.mask[label.mask < 255], expected[expected < len(cam)])


class SwapsLast(NoCrf):
    """Gives the last pixel to the other of two classes."""

    def infer(self, probabilities: Array) -> Array:
        swapped = probabilities.astype(np.float32)
        swapped[:, :, -1] = swapped[::-1, :, -1]
        return swapped


def test_disagreement_lowers_the_weight_by_its_factor() -> None:
    cam = one_row([0.9, 0.1, 0.2], [0.1, 0.9, 0.7])
    label = pseudo_label(SwapsLast(), cam, Labelling(agreement=0.5))
    np.testing.assert_array_equal(label.mask, [[0, 1, 0]])
    np.testing.assert_array_equal(label.cam_argmax, [[0, 1, 1]])
    np.testing.assert_array_equal(label.weight, [[255, 255, 127]])
    np.testing.assert_array_equal(pseudo_label(SwapsLast(), cam).weight, 255)
    chosen = pseudo_label(SwapsLast(), cam, Labelling(mask="cam", agreement=0.0))
    np.testing.assert_array_equal(chosen.mask, [[0, 1, 1]])
    np.testing.assert_array_equal(chosen.weight, [[255, 255, 0]])


def test_a_class_that_never_responds_wins_nothing() -> None:
    maps = one_row([0.0, 0.0, 0.0], [0.5, 0.0, 0.1], [0.2, 0.0, 0.3])
    np.testing.assert_array_equal(strongest(maps), [[1, 1, 2]])
    np.testing.assert_array_equal(strongest(np.zeros_like(maps)), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": "both"}, "mask is both; choose crf or cam"),
        ({"normalisation": "scene"}, "normalisation is scene; choose tile or absolute"),
        ({"background": 0.0}, "background is 0.0; give a power above 0, or null"),
        ({"agreement": 1.5}, "agreement is 1.5; give a factor of 0 to 1"),
        ({"response_scales": ()}, r"response_scales is \[\]; give numbers above 0, at least one"),
        ({"response_scales": (1.0, 0.0)}, r"response_scales is \[1.0, 0.0\]; give numbers above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Labelling(**settings)


def test_ill_formed_arguments_are_refused() -> None:
    cam = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"lies in 0\.\.1"):
        pseudo_label(NoCrf(), cam + 2)
    with pytest.raises(ValueError, match=r"lies in 0\.\.1"):
        pseudo_label(NoCrf(), cam + np.nan)
    with pytest.raises(ValueError, match="1 to 255 classes"):
        pseudo_label(NoCrf(), cam[0])
    with pytest.raises(ValueError, match="254 and a background"):
        pseudo_label(NoCrf(), np.zeros((255, 1, 1)), Labelling(background=1.0))
