"""Counts over thresholds and over weights, beside loops that follow their definitions."""

import numpy as np
import pytest

from ome.scoring.calibration import calibration_table, error_counts, error_rates
from ome.scoring.confusion import confusion_matrix
from ome.scoring.scores import Scores
from ome.scoring.thresholds import THRESHOLDS, ThresholdCurves, threshold_counts, threshold_table

NAMES = ("building", "tree", "car", "water")  # water is nowhere


def tiles() -> list[tuple[np.ndarray, np.ndarray]]:
    """Maps with values on, between and beside the thresholds, and references with ignored pixels."""
    generator = np.random.default_rng(0)
    pairs = []
    for height, width in ((9, 14), (7, 5)):
        reference = generator.integers(0, 3, (height, width)).astype(np.uint8)
        maps = generator.random((4, height, width), dtype=np.float32)
        maps[generator.random(maps.shape) < 0.3] = THRESHOLDS[37]
        maps[generator.random(maps.shape) < 0.1] = np.nextafter(THRESHOLDS[64], np.float32(0))
        maps[1][reference != 1] *= 0.5
        maps[3] = 0
        reference[generator.random(reference.shape) < 0.1] = 255
        pairs.append((maps, reference))
    return pairs


def test_scores_equal_those_of_a_mask_for_each_class_and_threshold() -> None:
    curves = ThresholdCurves(sum(threshold_counts(*tile) for tile in tiles()), NAMES)
    assert curves.iou.shape == (4, 101)
    for label in range(4):
        for place, threshold in enumerate(THRESHOLDS):
            matrix = np.zeros((2, 2), dtype=np.int64)
            for maps, reference in tiles():
                binary = np.where(reference == 255, 255, reference == label).astype(np.uint8)
                matrix += confusion_matrix((maps[label] >= threshold).astype(np.uint8), binary, 2)
            scores = Scores(matrix, ("others", "own"))
            for name in ("iou", "precision", "recall"):
                actual, expected = getattr(curves, name)[label, place], getattr(scores, name)[1]
                np.testing.assert_equal(actual, expected, err_msg=f"{name} of {label} at {threshold}")


def test_the_best_threshold_by_hand() -> None:
    # One class over four pixels: .2 .6 .6 .9, of which the second and the last are of the class.
    maps = np.array([[[0.2, 0.6, 0.6, 0.9, 0.5]], [[0.0, 0.0, 0.0, 0.0, 0.0]]], dtype=np.float32)
    reference = np.array([[1, 0, 1, 0, 255]], dtype=np.uint8)
    curves = ThresholdCurves(threshold_counts(maps, reference), ("tree", "road"))
    np.testing.assert_allclose(
        curves.iou[0, [0, 20, 21, 60, 61, 90, 91]], [2 / 4, 2 / 4, 2 / 3, 2 / 3, 0.5, 0.5, 0]
    )
    assert curves.best() == {"tree": (pytest.approx(0.21), pytest.approx(2 / 3)), "road": (0.0, 0.5)}
    header, rows = threshold_table(curves)
    assert header == ["class", "threshold", "IoU", "precision", "recall"]
    assert rows[21] == ["tree", "0.21", "66.67", "66.67", "100.00"]
    assert rows[91] == ["tree", "0.91", "0.00", "-", "0.00"]
    assert len(rows) == 2 * 101


def test_a_class_that_is_not_there_has_no_best_threshold() -> None:
    curves = ThresholdCurves(sum(threshold_counts(*tile) for tile in tiles()), NAMES)
    assert list(curves.best()) == ["building", "tree", "car"]


def test_errors_by_level_equal_a_loop_over_pixels() -> None:
    generator = np.random.default_rng(1)
    levels = generator.choice(np.array([0, 28, 113, 255], np.uint8), (30, 20))
    mask = generator.integers(0, 3, levels.shape).astype(np.uint8)
    reference = np.where(generator.random(levels.shape) < levels / 300, mask, (mask + 1) % 3).astype(np.uint8)
    mask[generator.random(mask.shape) < 0.1] = 255
    reference[generator.random(mask.shape) < 0.1] = 255
    expected = np.zeros((256, 2), dtype=int)
    for level, predicted, true in zip(levels.flat, mask.flat, reference.flat, strict=True):
        if 255 not in {int(predicted), int(true)}:
            expected[level, int(predicted != true)] += 1
    counts = error_counts(levels, mask, reference)
    np.testing.assert_array_equal(counts, expected)
    rates = error_rates(counts)
    assert rates[28] == expected[28, 1] / expected[28].sum()
    assert np.isnan(rates[1])


def test_the_calibration_table_by_hand() -> None:
    counts = np.zeros((256, 2), dtype=np.int64)
    counts[0], counts[255] = (1, 3), (10, 2)
    header, rows = calibration_table({"weight": counts})
    assert header == ["criterion", "level", "pixels", "fraction", "error rate"]
    assert rows == [["weight", "0", "4", "25.00", "75.00"], ["weight", "255", "12", "75.00", "16.67"]]
