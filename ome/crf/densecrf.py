"""Fully connected CRF by mean-field inference, many runs over one image at a time.

The model is that of Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011: unary -log p, Potts compatibility, a Gaussian kernel on positions and a bilateral
kernel on positions and colours, both symmetrically normalised. The kernels depend on the image alone, so
their lattices are built once and runs go through them eight at a time.

Names of dimensions: R runs, K classes, N = H * W pixels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ome.crf.lattice import join, splat_blur_slice, symmetric_kernel
from ome.crf.mean_field import EXP_RANGE, Flags, mean_field
from ome.crf.packing import pack, row_width, unpack, unpack_winners
from ome.crf.simplices import Float
from ome.crf.vectors import LANES
from ome.errors import UserError
from ome.extras import require

LEAST_PROBABILITY = 1e-5
BLOCK = 16  # pixels are visited in blocks of this side, so that lattice vertices stay in the cache


@dataclass(frozen=True)
class CrfParameters:
    """Constants of the CRF.

    Args:
        iterations: Mean-field updates, at least 0.
        gaussian_sxy: Standard deviation of the Gaussian kernel, pixels.
        gaussian_weight: Its weight, at least 0.
        bilateral_sxy: Standard deviation of the bilateral kernel in space, pixels.
        bilateral_srgb: Its standard deviation in colour, grey levels of 0..255.
        bilateral_weight: Its weight, at least 0.

    Raises:
        UserError: If a value is out of its range.
    """

    iterations: int = 10
    gaussian_sxy: float = 1.0
    gaussian_weight: float = 3.0
    bilateral_sxy: float = 67.0
    bilateral_srgb: float = 3.0
    bilateral_weight: float = 4.0

    def __post_init__(self) -> None:
        for name in ("iterations", "gaussian_weight", "bilateral_weight"):
            if not getattr(self, name) >= 0:
                raise UserError(f"CRF: {name} is {getattr(self, name)}; give a number of at least 0")
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            if not getattr(self, name) > 0:
                raise UserError(f"CRF: {name} is {getattr(self, name)}; give a standard deviation above 0")


class Crf(Protocol):
    """What all back ends offer."""

    def infer(self, probabilities: NDArray[np.floating]) -> Float:
        """Refines one (K, H, W) stack."""

    def winners(self, probabilities: NDArray[np.floating], powers: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The (R, H, W) masks of runs in which the maps are raised to (R, K) powers."""


class DenseCrf:
    """The CRF of one image.

    Args:
        image: (H, W, 3) uint8.
        parameters: Constants of the CRF.
        threads: Threads for building and for bundles of runs. The kernels hold no lock, so that a caller with
            many tiles does better with 1 here and a thread for each tile. The result is the same.

    Raises:
        ValueError: If the image has another shape or type.
    """

    def __init__(
        self, image: NDArray[np.uint8], parameters: CrfParameters | None = None, threads: int = 1
    ) -> None:
        check_image(image)
        self.parameters = parameters or CrfParameters()
        self.threads = threads
        self.height, self.width = image.shape[:2]
        self._order = blockwise_order(self.height, self.width)
        features = kernel_features(image, self.parameters, self._order)
        weights = self.parameters.gaussian_weight, self.parameters.bilateral_weight
        with ThreadPoolExecutor(threads) as pool:
            gaussian, bilateral = pool.map(symmetric_kernel, features, weights)
        lattice = join(gaussian, bilateral)
        # A message is largest where all pixels agree.
        heard = splat_blur_slice(lattice, np.ones((len(self._order), LANES), np.float32))
        self._agreement = np.ascontiguousarray(heard[:, 0])
        self._stabilise = bool(self._agreement.max() > EXP_RANGE)
        self._lattice = lattice._replace(vertices=lattice.vertices.ravel(), weights=lattice.weights.ravel())

    def infer(self, probabilities: NDArray[np.floating]) -> Float:
        """Refines one stack.

        Args:
            probabilities: (K, H, W) in [0, 1], clipped to at least 1e-5; need not sum to 1 over classes.

        Returns:
            (K, H, W) float32 class probabilities.

        Raises:
            ValueError: If the stack is empty, not finite or of another size than the image.
        """
        energy = log_probabilities(probabilities, (self.height, self.width))
        powers = np.ones((1, len(energy)), np.float32)
        values = self._run(energy, powers, self._workspace(row_width(1, len(energy))))
        refined = np.empty_like(energy)
        unpack(values, self._order, refined)
        return refined.reshape(-1, self.height, self.width)

    def winners(self, probabilities: NDArray[np.floating], powers: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Refines variants of one stack, eight at a time, and tells which class wins in each.

        Args:
            probabilities: (K, H, W) in [0, 1], K up to 255.
            powers: (R, K), all above 0: run r refines `probabilities ** powers[r]`, clipped to at least 1e-5.

        Returns:
            (R, H, W) uint8 class of the largest probability.

        Raises:
            ValueError: As for `infer`, or the powers do not fit.
        """
        energy = log_probabilities(probabilities, (self.height, self.width))
        powers = np.asarray(powers, np.float32)
        check_powers(powers, len(energy))
        winners = np.empty((len(powers), energy.shape[1]), np.uint8)
        width = max(row_width(1, len(energy)), row_width(LANES, len(energy)) - LANES)
        firsts = range(0, len(powers), LANES)

        def run(mine: Sequence[int]) -> None:
            # One workspace for all bundles of a thread: fresh memory costs as much as an update.
            workspace = self._workspace(width)
            for first in mine:
                values = self._run(energy, powers[first : first + LANES], workspace)
                unpack_winners(values, self._order, winners[first : first + LANES])

        with ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(run, [firsts[thread :: self.threads] for thread in range(self.threads)]):
                pass
        return winners.reshape(-1, self.height, self.width)

    def _workspace(self, width: int) -> Float:
        """Memory for the sums of two iterations, with `width` values a vertex."""
        return np.empty((2, self._lattice.num_vertices * width), np.float32)

    def _run(self, energy: Float, powers: Float, workspace: Float) -> Float:
        """Refines a bundle of up to eight runs; returns rows as `mean_field` leaves them."""
        runs, classes = powers.shape
        values = np.empty((energy.shape[1], row_width(runs, classes)), np.float32)
        pack(energy, powers, np.log(np.float32(LEAST_PROBABILITY)), self._order, values)
        flags = Flags(runs == 1, self._stabilise, first=True, last=False)
        mean_field(self._lattice, values, self._agreement, workspace, self.parameters.iterations, flags)
        return values


class ReferenceDenseCrf:
    """The same CRF by pydensecrf, one run after another: for comparison.

    Args:
        image: (H, W, 3) uint8.
        parameters: Constants of the CRF.

    Raises:
        UserError: If pydensecrf is not installed.
        ValueError: If the image has another shape or type.
    """

    def __init__(self, image: NDArray[np.uint8], parameters: CrfParameters | None = None) -> None:
        require("reference", "crf.backend=pydensecrf", "take ours: crf.backend=lattice")
        import pydensecrf.densecrf  # noqa: PLC0415 - part of an extra

        check_image(image)
        self._dense_crf = pydensecrf.densecrf.DenseCRF2D
        self._image = np.array(image, order="C")  # pydensecrf refuses read-only arrays
        self.parameters = parameters or CrfParameters()

    def infer(self, probabilities: NDArray[np.floating]) -> Float:
        """Refines one (K, H, W) stack, see `DenseCrf.infer`."""
        probabilities = np.asarray(probabilities, np.float32)
        height, width = self._image.shape[:2]
        check_stack(probabilities, (height, width))
        p = self.parameters
        crf = self._dense_crf(width, height, len(probabilities))
        unary = -np.log(np.clip(probabilities, LEAST_PROBABILITY, 1.0))
        crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(len(probabilities), -1)))
        crf.addPairwiseGaussian(sxy=p.gaussian_sxy, compat=p.gaussian_weight)
        crf.addPairwiseBilateral(
            sxy=p.bilateral_sxy, srgb=p.bilateral_srgb, rgbim=self._image, compat=p.bilateral_weight
        )
        return np.array(crf.inference(p.iterations), np.float32).reshape(probabilities.shape)

    def winners(self, probabilities: NDArray[np.floating], powers: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Refines variants of one stack, see `DenseCrf.winners`."""
        stack, exponents = np.asarray(probabilities, np.float32), np.asarray(powers, np.float32)
        check_powers(exponents, len(stack))
        variants = [self.infer(stack ** run[:, None, None]) for run in exponents]
        return np.stack([variant.argmax(0).astype(np.uint8) for variant in variants])


def check_image(image: NDArray[np.uint8]) -> None:
    """Raises ValueError unless the image is (H, W, 3) uint8 and has pixels."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"the CRF needs an (H, W, 3) uint8 image, not {image.shape} {image.dtype}")


def check_stack(stack: NDArray[np.floating], size: tuple[int, ...]) -> None:
    """Raises ValueError unless `stack` is (K, H, W) of the image's size, finite and not negative."""
    if stack.ndim != 3 or stack.shape[1:] != size or stack.size == 0:
        raise ValueError(
            f"the CRF needs at least one map of size {size} in a stack, not an array of {stack.shape}"
        )
    if not (np.isfinite(stack).all() and stack.min() >= 0.0):
        raise ValueError("the CRF's probabilities contain nan, infinity or negative numbers")


def log_probabilities(probabilities: NDArray[np.floating], size: tuple[int, int]) -> Float:
    """Checks a (K, H, W) stack and returns its (K, N) float32 logarithms, at most 0, -inf for 0."""
    stack = np.asarray(probabilities, np.float32)
    check_stack(stack, size)
    with np.errstate(divide="ignore"):
        energy: Float = np.log(np.minimum(stack.reshape(len(stack), -1), np.float32(1.0)))
    return energy


def check_powers(powers: NDArray[np.floating], classes: int) -> None:
    """Raises ValueError unless `powers` is (R, K) with at least one run, and all above 0."""
    if powers.ndim != 2 or powers.shape[1] != classes or len(powers) == 0:
        raise ValueError(f"the CRF needs at least one run of {classes} powers, not {powers.shape}")
    if not (np.isfinite(powers).all() and powers.min() > 0.0):
        raise ValueError("the CRF's powers must be finite and above 0")


def kernel_features(
    image: NDArray[np.uint8], parameters: CrfParameters, order: NDArray[np.int64]
) -> tuple[Float, Float]:
    """Returns the features of the Gaussian and of the bilateral kernel, in units of their deviations.

    Args:
        image: (H, W, 3) uint8.
        parameters: Gives the standard deviations.
        order: (N,) the row-major index of the pixel in each row of the result.

    Returns:
        (N, 2) float32: x and y; (N, 5) float32: x, y and the colours.
    """
    rows, columns = np.divmod(order, image.shape[1])
    positions = np.stack([columns, rows], 1).astype(np.float32)
    colours = image.reshape(-1, 3)[order].astype(np.float32)
    bilateral = np.concatenate(
        [
            positions / np.float32(parameters.bilateral_sxy),
            colours / np.float32(parameters.bilateral_srgb),
        ],
        1,
    )
    return positions / np.float32(parameters.gaussian_sxy), bilateral


def blockwise_order(height: int, width: int) -> NDArray[np.int64]:
    """Returns (N,) the row-major indices of pixels, block after block, row-major inside a block."""
    rows, columns = np.divmod(np.arange(height * width), width)
    blocks = rows // BLOCK * (-(-width // BLOCK)) + columns // BLOCK
    return np.argsort(blocks, kind="stable")
