import json

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from ome.scoring.confusion import confusion_matrix
from ome.scoring.scores import Scores

SCORE_NAMES = ("iou", "precision", "recall", "f1", "miou", "mf1", "oa", "kappa", "fwiou")


def random_maps(num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    reference = generator.integers(0, num_classes, (3, 20, 17)).astype(np.uint8)
    prediction = np.where(generator.random(reference.shape) < 0.6, reference, (reference + 1) % num_classes)
    reference[generator.random(reference.shape) < 0.1] = 255
    return prediction.astype(np.uint8), reference


@pytest.mark.parametrize("num_classes", [4, 20])  # 20 * 20 does not fit the byte of a label
def test_matrix_equals_a_loop_over_pixels(num_classes: int) -> None:
    prediction, reference = random_maps(num_classes)
    expected = np.zeros((num_classes, num_classes), dtype=int)
    for predicted, true in zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True):
        if true != 255:
            expected[true, predicted] += 1
    np.testing.assert_array_equal(confusion_matrix(prediction, reference, num_classes), expected)
    tensors = torch.from_numpy(prediction), torch.from_numpy(reference)
    np.testing.assert_array_equal(confusion_matrix(*tensors, num_classes), expected)


def test_matrix_and_iou_equal_torchmetrics() -> None:
    prediction, reference = map(torch.from_numpy, random_maps(6, seed=1))
    arguments = {"num_classes": 6, "ignore_index": 255}
    matrix = confusion_matrix(prediction, reference, 6)
    expected = multiclass_confusion_matrix(prediction.long(), reference.long(), **arguments)
    np.testing.assert_array_equal(matrix, expected.numpy())
    iou = multiclass_jaccard_index(prediction.long(), reference.long(), average=None, **arguments)
    np.testing.assert_allclose(Scores(matrix, tuple("abcdef")).iou, iou.numpy(), atol=1e-6)


def test_hand_worked_two_classes() -> None:
    # 10 pixels of class a: 6 found, 4 called b; 5 of class b: 3 found, 2 called a.
    scores = Scores(np.array([[6, 4], [2, 3]]), ("a", "b"))
    np.testing.assert_allclose(scores.iou, [6 / 12, 3 / 9])
    np.testing.assert_allclose(scores.precision, [6 / 8, 3 / 7])
    np.testing.assert_allclose(scores.recall, [6 / 10, 3 / 5])
    np.testing.assert_allclose(scores.f1, [12 / 18, 6 / 12])
    assert scores.miou == pytest.approx(5 / 12)
    assert scores.mf1 == pytest.approx(7 / 12)
    assert scores.oa == pytest.approx(9 / 15)
    chance = (10 * 8 + 5 * 7) / 15**2
    assert scores.kappa == pytest.approx((9 / 15 - chance) / (1 - chance))
    assert scores.fwiou == pytest.approx((10 * 6 / 12 + 5 * 3 / 9) / 15)


def test_a_class_absent_from_both_is_nan_and_left_out_of_the_means() -> None:
    # b is predicted but not there; c is neither.
    scores = Scores(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]), ("a", "b", "c"))
    np.testing.assert_array_equal(scores.iou, [0.75, 0, np.nan])
    np.testing.assert_array_equal(scores.precision, [1, 0, np.nan])
    np.testing.assert_array_equal(scores.recall, [0.75, np.nan, np.nan])
    assert scores.miou == 0.375
    assert scores.fwiou == 0.75


def test_an_empty_matrix_has_no_score() -> None:
    scores = Scores(np.zeros((2, 2), dtype=np.int64), ("a", "b"))
    assert all(np.isnan(getattr(scores, name)).all() for name in SCORE_NAMES)


def test_values_that_are_no_class_are_refused_with_their_count() -> None:
    reference = np.array([[0, 1, 255]], dtype=np.uint8)
    with pytest.raises(ValueError, match=r"1 pixels of the prediction are outside 0\.\.1"):
        confusion_matrix(np.array([[0, 2, 2]], dtype=np.uint8), reference, 2)
    with pytest.raises(ValueError, match=r"2 pixels of the reference are outside 0\.\.1"):
        confusion_matrix(np.zeros((1, 3), np.uint8), np.array([[7, 2, 255]], dtype=np.uint8), 2)
    with pytest.raises(ValueError, match="differ"):
        confusion_matrix(np.zeros((2, 3), np.uint8), reference, 2)
    with pytest.raises(ValueError, match="integer"):
        confusion_matrix(np.zeros((1, 3), np.float32), reference, 2)


def test_views_and_read_only_arrays_count_like_copies() -> None:
    prediction, reference = random_maps(4)
    expected = confusion_matrix(prediction, reference, 4)
    prediction.setflags(write=False)
    np.testing.assert_array_equal(confusion_matrix(prediction[:, ::-1], reference[:, ::-1], 4), expected)


def test_scores_survive_a_round_trip_through_json() -> None:
    scores = Scores(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ("a", "b", "c"))
    text = json.dumps(scores.to_dict(), allow_nan=False)
    again = Scores.from_dict(json.loads(text))
    assert again.names == scores.names
    assert again.matrix.dtype == np.int64
    np.testing.assert_array_equal(again.matrix, scores.matrix)
    assert json.loads(text)["iou"] == [0.75, pytest.approx(2 / 3), None]
    with pytest.raises(ValueError, match="does not fit 2 class names"):
        Scores(scores.matrix, ("a", "b"))
