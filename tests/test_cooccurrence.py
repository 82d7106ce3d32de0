import numpy as np
import pytest

from ome.scoring.cooccurrence import cooccurrence, inseparable, mean_cooccurrence


def test_hand_worked_example_with_a_class_that_never_occurs() -> None:
    tags = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.uint8)
    matrix = cooccurrence(tags)
    expected = [[1, 2 / 3, 0], [2 / 3, 1, 0], [np.nan, np.nan, np.nan]]
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-15)
    assert mean_cooccurrence(matrix) == pytest.approx(2 / 3)


def test_only_tiles_in_which_both_classes_count_are_counted() -> None:
    rng = np.random.default_rng(0)
    tags, learnt = rng.integers(0, 2, (40, 4)), rng.random((40, 4)) < 0.7
    matrix = cooccurrence(tags, learnt)
    for i in range(4):
        for j in range(4):
            of_i = [
                tag[j] for tag, known in zip(tags, learnt, strict=True) if tag[i] and known[i] and known[j]
            ]
            assert matrix[i, j] == pytest.approx(sum(of_i) / len(of_i))
    apart = cooccurrence(np.array([[1, 1], [1, 1]]), np.array([[True, False], [False, True]]))
    assert np.isnan(apart[0, 1])
    assert np.isnan(mean_cooccurrence(apart))


def test_counts_beyond_one_byte() -> None:
    tags = np.ones((300, 2), dtype=np.uint8)
    tags[:30, 1] = 0
    assert cooccurrence(tags)[0, 1] == pytest.approx(0.9)


def test_mean_spans_its_documented_range() -> None:
    assert mean_cooccurrence(cooccurrence(np.eye(4))) == 0
    assert mean_cooccurrence(cooccurrence(np.ones((5, 4)))) == 1
    assert np.isnan(mean_cooccurrence(cooccurrence(np.array([[1, 0], [1, 0]]))))


def test_mean_of_an_asymmetric_matrix_takes_every_ordered_pair() -> None:
    tags = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 0, 1]])
    pairs = []
    for i in range(3):
        rows = tags[tags[:, i] == 1]
        pairs += [rows[:, j].mean() for j in range(3) if j != i]
    assert mean_cooccurrence(cooccurrence(tags)) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("tags", [np.array([0, 1]), np.array([[0, 2]]), np.array([[0.5, 1.0]])])
def test_anything_but_a_table_of_zeros_and_ones_is_refused(tags: np.ndarray) -> None:
    with pytest.raises(ValueError, match="tags"):
        cooccurrence(tags)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([[1, 0, 0], [1, 0, 0]], ["field is the only class that is learnt from the 2"]),
        (
            [[1, 1, 0], [1, 1, 0], [0, 0, 1]],
            ["field, lake have the same tags in all of the 3 training tiles"],
        ),
        ([[1, 1, 1]], ["field, lake, road have"]),
        ([[1, 1, 0], [1, 0, 0]], []),
        ([[1, 2, 0], [1, 0, 1], [0, 2, 1]], ["lake is too small in all of the 3 training tiles"]),
        ([[1, 1, 0], [1, 2, 1], [0, 0, 1]], ["field, lake have"]),
        ([[1, 0, 0], [0, 1, 0]], []),
    ],
)
def test_what_tags_cannot_teach_is_said(tags: list[list[int]], expected: list[str]) -> None:
    """2: too small in the tile to be learnt from it."""
    lines = inseparable(("field", "lake", "road"), np.minimum(tags, 1), np.array(tags) < 2)
    assert len(lines) == len(expected)
    assert all(line.startswith(words) for line, words in zip(lines, expected, strict=True))
