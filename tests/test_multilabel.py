import numpy as np
import pytest
import torch

from ome.errors import UserError
from ome.scoring.multilabel import multilabel_scores, tag_uncertainty


def brute_force_average_precision(logits: np.ndarray, tags: np.ndarray) -> float:
    """Mean over positives of the precision among all tiles scored at least as high."""
    precisions = [tags[logits >= threshold].mean() for threshold in logits[tags == 1]]
    return float(np.mean(precisions))


def test_equals_a_brute_force_average_precision_and_f1() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(50, 4)).round(1)  # rounded: ties occur
    tags = (generator.random((50, 4)) < [0.2, 0.5, 0.8, 0.4]).astype(int)
    scores = multilabel_scores(torch.tensor(logits, dtype=torch.float32), torch.tensor(tags))
    for index in range(4):
        predicted, present = logits[:, index] > 0, tags[:, index] == 1
        expected = brute_force_average_precision(logits[:, index], tags[:, index])
        assert scores.average_precision[index] == pytest.approx(expected, abs=1e-6)
        expected = 2 * (predicted & present).sum() / (predicted.sum() + present.sum())
        assert scores.f1[index] == pytest.approx(expected, abs=1e-6)
    assert scores.mean_average_precision == pytest.approx(scores.average_precision.mean())
    assert scores.mean_f1 == pytest.approx(scores.f1.mean())


def test_uncertainty_is_the_mean_entropy_in_bits() -> None:
    # A quarter: 1/4 log2 4 + 3/4 log2 4/3 = 0.8113 bits.
    uncertainty = tag_uncertainty(np.array([[0.5, 0.5], [0.0, 1.0], [0.25, 0.75], [0.5, 1.0]]))
    np.testing.assert_allclose(uncertainty, [1, 0, 0.811278, 0.5], atol=1e-6)


def test_classes_without_positives_are_nan_and_left_out_of_the_mean() -> None:
    logits = torch.tensor([[2.0, 1.0, -3.0], [-1.0, 1.0, -2.0]])
    scores = multilabel_scores(logits, torch.tensor([[1, 0, 1], [0, 0, 0]]))
    np.testing.assert_array_equal(scores.average_precision, [1.0, np.nan, 0.5])
    np.testing.assert_array_equal(scores.f1, [1.0, np.nan, 0.0])
    assert scores.mean_average_precision == 0.75
    assert scores.mean_f1 == 0.5


def test_no_positive_at_all_is_nan() -> None:
    scores = multilabel_scores(torch.randn(3, 2), torch.zeros(3, 2))
    assert np.isnan([scores.mean_average_precision, scores.mean_f1]).all()


def test_large_logits_do_not_tie() -> None:
    scores = multilabel_scores(torch.tensor([[60.0], [50.0]]), torch.tensor([[1], [0]]))
    assert scores.average_precision[0] == 1


def test_logits_within_the_unit_interval_are_not_taken_for_probabilities() -> None:
    scores = multilabel_scores(torch.tensor([[0.2], [0.9]]), torch.tensor([[1], [1]]))
    assert scores.f1[0] == 1


def test_a_diverged_or_misshapen_input_is_refused() -> None:
    with pytest.raises(UserError, match="1 of 2 predicted tags are nan or infinite: lower the learning rate"):
        multilabel_scores(torch.tensor([[float("nan"), 0.0]]), torch.tensor([[1, 0]]))
    with pytest.raises(ValueError, match="tiles, classes"):
        multilabel_scores(torch.zeros(2, 3), torch.zeros(2, 2))
