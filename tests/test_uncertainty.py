"""Response scaling against the original implementation's numbers and hand-worked cases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ome.pseudo.crf import DenseCrf
from ome.pseudo.uncertainty import RESPONSE_SCALES, certainty_weight, pseudo_label, response_variance

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


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_golden(name: str) -> None:
    golden = np.load(GOLDEN / f"uncertainty_{name}.npz", allow_pickle=False)
    cam = np.zeros((int(golden["num_classes"]), *golden["image"].shape[:2]), np.float32)
    cam[golden["classes"]] = golden["cam"]
    label = pseudo_label(DenseCrf(golden["image"]), cam)
    assert np.abs(label.probabilities - golden["crf_prob"]).max() < 5e-3
    assert (label.mask == golden["crf"]).mean() >= 0.999
    assert (label.weight == golden["weight"]).mean() >= 0.995
    np.testing.assert_array_equal(label.cam_argmax, golden["argmax"])
    assert {label.mask.dtype, label.weight.dtype, label.cam_argmax.dtype} == {np.dtype(np.uint8)}


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


def test_a_tile_without_contrast_in_its_variance_is_certain_or_absolute() -> None:
    even = np.full((2, 2), 5 / 36)
    np.testing.assert_array_equal(certainty_weight(even, "tile"), 255)
    np.testing.assert_array_equal(certainty_weight(even, "absolute"), 113)
    with pytest.raises(ValueError, match='not "scene"'):
        certainty_weight(even, "scene")  # type: ignore[arg-type]


def test_a_single_class_is_certain_everywhere() -> None:
    crf = NoCrf()
    cam = np.zeros((5, 3, 4), np.float32)
    cam[2] = 0.5
    label = pseudo_label(crf, cam)
    np.testing.assert_array_equal(label.mask, 2)
    np.testing.assert_array_equal(label.weight, 255)
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


def test_ill_formed_arguments_are_refused() -> None:
    cam = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"lies in 0\.\.1"):
        pseudo_label(NoCrf(), cam + 2)
    with pytest.raises(ValueError, match=r"lies in 0\.\.1"):
        pseudo_label(NoCrf(), cam + np.nan)
    with pytest.raises(ValueError, match="response scales"):
        pseudo_label(NoCrf(), cam, scales=())
    with pytest.raises(ValueError, match="response scales"):
        pseudo_label(NoCrf(), cam, scales=(1.0, 0.0))
    with pytest.raises(ValueError, match="1 to 255 classes"):
        pseudo_label(NoCrf(), cam[0])
