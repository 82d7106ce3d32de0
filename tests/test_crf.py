"""The CRF against pydensecrf, and its lattice against a slow twin and the exact Gaussian."""

import importlib.util
import math
import sys
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import CrfParameters
from ome.crf.lattice import build_lattice, filter_values, kernel, splat_blur_slice, symmetric_kernel
from ome.crf.limits import DEVIATIONS, LARGEST_WEIGHT
from ome.crf.reference import ReferenceDenseCrf
from ome.crf.vectors import LANES, exp8, load8, store8
from ome.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
needs_reference = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None,
    reason="pydensecrf is not installed; golden vectors cover it",
)
Array = NDArray[Any]


def textured_image(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Patches of colour with a gradient and noise, so that the lattice is neither empty nor full."""
    generator = np.random.default_rng(seed)
    patches = np.kron(generator.integers(30, 220, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
    ramp = np.linspace(0, 20, width)[None, :, None]
    noise = generator.normal(0, 4, (height, width, 3))
    return np.clip(patches[:height, :width] + ramp + noise, 0, 255).astype(np.uint8)


def random_stack(classes: int, size: tuple[int, int], seed: int) -> Array:
    stack = np.random.default_rng(seed).random((classes, *size)).astype(np.float32) ** 2
    stack[0, : size[0] // 2] = 0.0  # reaches the clip
    return stack


class SlowLattice:
    """The permutohedral lattice by its definition: vertices in a dictionary, weights by solving for them."""

    def __init__(self, features: Array) -> None:
        num_points, self.dimensions = features.shape
        size = self.dimensions + 1
        basis = np.zeros((size, self.dimensions))  # orthogonal columns of sum 0
        for axis in range(self.dimensions):
            basis[: axis + 1, axis] = 1.0
            basis[axis + 1, axis] = -(axis + 1.0)
        basis /= np.linalg.norm(basis, axis=0)
        self.points = [self.enclose(row) for row in features.astype(float) @ basis.T * size * np.sqrt(2 / 3)]
        assert len(self.points) == num_points

    @staticmethod
    def enclose(lifted: Array) -> list[tuple[tuple[int, ...], float]]:
        size = len(lifted)
        corner = np.round(lifted / size) * size
        excess = round(corner.sum() / size)
        by_offset = np.argsort(lifted - corner)  # smallest first: most overshot
        if excess > 0:
            corner[by_offset[:excess]] -= size
        elif excess < 0:
            corner[by_offset[excess:]] += size
        descending = np.argsort(corner - lifted)
        corners = [corner]
        for remainder in range(1, size):
            step = np.full(size, float(remainder))
            step[descending[size - remainder :]] -= size
            corners.append(corner + step)
        system = np.vstack([np.stack(corners, 1), np.ones(size)])
        weights = np.linalg.lstsq(system, np.append(lifted, 1.0), rcond=None)[0]
        assert weights.min() > -1e-9
        return [(tuple(int(x) for x in vertex), w) for vertex, w in zip(corners, weights, strict=True)]

    def filter(self, values: Array) -> Array:
        table: dict[tuple[int, ...], Any] = defaultdict(lambda: 0.0)
        for point, value in zip(self.points, values, strict=True):
            for vertex, weight in point:
                table[vertex] = table[vertex] + weight * value
        for direction in range(self.dimensions + 1):
            step = np.ones(self.dimensions + 1, int)
            step[direction] -= self.dimensions + 1
            table = {
                vertex: value
                + (
                    table.get(tuple(int(x) for x in vertex + step), 0.0)
                    + table.get(tuple(int(x) for x in vertex - step), 0.0)
                )
                / 2
                for vertex, value in table.items()
            }
        gain = 1 / (1 + 2.0**-self.dimensions)
        return np.array([gain * sum(w * table[vertex] for vertex, w in point) for point in self.points])


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_lattice_equals_its_slow_twin(dimensions: int) -> None:
    generator = np.random.default_rng(dimensions)
    features = generator.normal(0, 1.5, (150, dimensions)).astype(np.float32)
    values = generator.random((150, 3)).astype(np.float32)
    filtered = filter_values(build_lattice(features), values)
    np.testing.assert_allclose(filtered, SlowLattice(features).filter(values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 5])
def test_lattice_approximates_the_gaussian(dimensions: int) -> None:
    generator = np.random.default_rng(dimensions)
    features = generator.uniform(0, 3, (1500, dimensions)).astype(np.float32)
    values = generator.random((1500, 4)).astype(np.float32)
    squares = ((features[:, None] - features[None]) ** 2).sum(-1)
    kernel = np.exp(-squares / 2)
    exact, filtered = kernel @ values, filter_values(build_lattice(features), values)
    # The lattice's height is a convention that the normalisation cancels: compare weighted means.
    ones = np.ones((1500, 1), np.float32)
    exact_mean = exact / kernel.sum(1, keepdims=True)
    mean = filtered / filter_values(build_lattice(features), ones)
    assert np.corrcoef(exact.ravel(), filtered.ravel())[0, 1] > 0.99
    assert np.abs(mean - exact_mean).max() < 0.1
    assert np.sqrt(((mean - exact_mean) ** 2).mean()) < 0.25 * exact_mean.std() + 0.01


def test_symmetric_kernel_is_symmetric_and_normalised() -> None:
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 2, (80, 5)).astype(np.float32)
    lattice = symmetric_kernel(features, weight=4.0)
    matrix = splat_blur_slice(lattice, np.eye(80, dtype=np.float32))
    plain = SlowLattice(features).filter(np.eye(80))
    factors = 1 / np.sqrt(plain.sum(1))
    np.testing.assert_allclose(matrix, 4.0 * factors[:, None] * plain * factors, rtol=1e-4, atol=1e-6)


def test_features_beyond_any_key_are_refused() -> None:
    features = np.array([[0.0] * 5, [1e5] * 5], np.float32)
    with pytest.raises(UserError, match="63-bit key"):
        build_lattice(features)


@kernel
def exp_of_all(exponents: Array, powers: Array) -> None:
    """Eight at a time."""
    for start in range(0, len(exponents), LANES):
        store8(powers, start, exp8(load8(exponents, start)))


def test_exponential() -> None:
    exponents = np.linspace(-80, 80, 2000).astype(np.float32)
    powers = np.empty_like(exponents)
    exp_of_all(exponents, powers)
    np.testing.assert_allclose(powers, np.exp(exponents.astype(np.float64)), rtol=5e-6)


@needs_reference
@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ((40, 56), CrfParameters()),
        ((33, 17), CrfParameters(iterations=3, gaussian_sxy=2.5, gaussian_weight=1.0)),
        ((24, 40), CrfParameters(bilateral_sxy=20.0, bilateral_srgb=13.0, bilateral_weight=10.0)),
        ((24, 24), CrfParameters(iterations=2, bilateral_weight=900.0)),  # energies beyond exp's range
        ((16, 16), CrfParameters(iterations=0)),
        ((1, 1), CrfParameters()),
    ],
)
def test_equals_pydensecrf(size: tuple[int, int], parameters: CrfParameters) -> None:
    image = textured_image(*size, seed=size[1])
    stack = random_stack(5, size, seed=1)
    powers = np.random.default_rng(2).uniform(0.25, 2, (11, 5)).astype(np.float32)
    ours, reference = DenseCrf(image, parameters), ReferenceDenseCrf(image, parameters)
    assert ours.infer(stack).dtype == np.float32
    np.testing.assert_allclose(ours.infer(stack), reference.infer(stack), atol=5e-3)
    winners = ours.winners(stack, powers)
    assert winners.dtype == np.uint8
    assert (winners == reference.winners(stack, powers)).mean() >= 0.999


@pytest.mark.parametrize("runs", [1, 2, 7, 27])
@pytest.mark.parametrize("classes", [1, 3, 5, 6, 9])
def test_a_bundle_gives_what_single_runs_give(runs: int, classes: int) -> None:
    crf = DenseCrf(textured_image(20, 28, seed=3))
    stack = random_stack(classes, (20, 28), seed=runs)
    powers = np.random.default_rng(classes).uniform(0.25, 2, (runs, classes)).astype(np.float32)
    single = np.stack([crf.infer(stack ** run[:, None, None]) for run in powers])
    np.testing.assert_allclose(single.sum(1), 1.0, atol=1e-5)
    winners = crf.winners(stack, powers)
    # Rounding may decide between classes that are equally probable, and only there.
    chosen = np.take_along_axis(single, winners[:, None].astype(np.int64), axis=1)[:, 0]
    assert (single.max(1) - chosen).max() < 2e-5


def test_same_bytes_again() -> None:
    image, stack = textured_image(48, 32, seed=4), random_stack(4, (48, 32), seed=5)
    powers = np.random.default_rng(6).uniform(0.25, 2, (21, 4))
    first = DenseCrf(image).winners(stack, powers)
    np.testing.assert_array_equal(DenseCrf(image).winners(stack, powers), first)
    np.testing.assert_array_equal(DenseCrf(image).infer(stack), DenseCrf(image).infer(stack))


def test_empty_and_ill_shaped_stacks_are_refused() -> None:
    crf = DenseCrf(textured_image(8, 8, seed=6))
    for shape in [(0, 8, 8), (3, 8, 9), (8, 8)]:
        with pytest.raises(ValueError, match="at least one map of size"):
            crf.infer(np.ones(shape))
    for value in (np.nan, -1.0):
        with pytest.raises(ValueError, match="nan, infinity or negative"):
            crf.winners(np.full((2, 8, 8), value), np.ones((3, 2)))
    for powers in [np.ones((0, 2)), np.ones((3, 1)), np.ones((3, 3)), np.ones(2)]:
        with pytest.raises(ValueError, match="at least one run of 2 powers"):
            crf.winners(np.ones((2, 8, 8)), powers)
    for power in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="finite and above 0"):
            crf.winners(np.ones((2, 8, 8)), np.full((3, 2), power))
    with pytest.raises(ValueError, match="uint8 image"):
        DenseCrf(np.zeros((8, 8, 3), np.float32))


def test_a_missing_reference_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(UserError, match=r"ome\[reference\]"):
        ReferenceDenseCrf(textured_image(8, 8, seed=7))


CONSTANTS = [field.name for field in fields(CrfParameters)]


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("value", [1e-300, 1e-20, -1.0, 0.0, 1e39, math.nan, math.inf, None, "1", True])
def test_constants_are_refused_or_give_probabilities(name: str, value: Any) -> None:  # noqa: ANN401
    """Small deviations used to overflow the keys of lattice cells, and foreign memory was written."""
    image, maps = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8), np.full((2, 24, 24), 0.5)
    if name.endswith("weight") and value in {0.0, 1e-20, 1e-300}:
        crf = DenseCrf(image, CrfParameters(**{name: value}))
        assert np.allclose(crf.infer(maps).sum(axis=0), 1)
        return
    with pytest.raises(UserError, match=f"CRF: {name} is .*; give a"):
        CrfParameters(**{name: value})


@pytest.mark.parametrize("name", [name for name in CONSTANTS if name != "iterations"])
@pytest.mark.parametrize("end", [0, 1])
def test_the_limits_of_constants_give_probabilities(name: str, end: int) -> None:
    is_deviation = name.endswith(("sxy", "srgb"))
    value = DEVIATIONS[end] if is_deviation else (0.0, LARGEST_WEIGHT)[end]
    random = np.random.default_rng(0)
    image, maps = random.integers(100, 110, (64, 64, 3), np.uint8), random.dirichlet([1, 1], (64, 64))
    crf = DenseCrf(image, CrfParameters(**{name: value}))
    probabilities = crf.infer(maps.transpose(2, 0, 1))
    assert np.isfinite(probabilities).all()
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
