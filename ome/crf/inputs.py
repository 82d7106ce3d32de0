"""Inputs of the fully connected CRF: its constants, checks of arrays, and the features of its kernels.

Names of dimensions: R runs, K classes, N = H * W pixels.
"""

from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ome.crf.limits import DEVIATIONS, LARGEST_WEIGHT
from ome.crf.simplices import Float
from ome.errors import UserError

LEAST_PROBABILITY = 1e-5
BLOCK = 16  # side of the blocks in which pixels are ordered, so that lattice vertices stay in the cache


@dataclass(frozen=True)
class CrfParameters:
    """Constants of the CRF.

    Args:
        iterations: Mean-field updates.
        gaussian_sxy: Standard deviation of the Gaussian kernel in pixels, in `DEVIATIONS`.
        gaussian_weight: Its weight, from 0 to `LARGEST_WEIGHT`.
        bilateral_sxy: Standard deviation of the bilateral kernel in space, in pixels.
        bilateral_srgb: Its standard deviation in colour, in grey levels of 0..255.
        bilateral_weight: Its weight, from 0 to `LARGEST_WEIGHT`.

    Raises:
        UserError: A value is not a number, or out of its range.
    """

    iterations: int = 10
    gaussian_sxy: float = 1.0
    gaussian_weight: float = 3.0
    bilateral_sxy: float = 67.0
    bilateral_srgb: float = 3.0
    bilateral_weight: float = 4.0

    def __post_init__(self) -> None:
        weights, deviations = (0.0, LARGEST_WEIGHT), DEVIATIONS
        for name, value in asdict(self).items():
            low, high = deviations if name.rpartition("_")[2] in {"sxy", "srgb"} else weights
            kind = Integral if name == "iterations" else Real
            if isinstance(value, bool) or not (isinstance(value, kind) and low <= float(value) <= high):
                noun = "a whole number" if name == "iterations" else "a number"
                raise UserError(f"CRF: {name} is {value!r}; give {noun} from {low:g} to {high:g}")


class Crf(Protocol):
    """The interface of all back ends; see `ome.crf.densecrf.DenseCrf`."""

    def infer(self, probabilities: NDArray[np.floating]) -> Float:
        """Refines one stack of class probabilities (K, H, W)."""

    def winners(self, probabilities: NDArray[np.floating], powers: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Returns the (R, H, W) class maps of runs that refine the stack raised to (R, K) powers."""


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
        parameters: Constants of the CRF, of which the standard deviations are used.
        order: (N,) row-major index of the pixel of each row of the result.

    Returns:
        (N, 2) float32: x and y; (N, 5) float32: x, y and the colours.
    """
    rows, columns = np.divmod(order, image.shape[1])
    positions = np.stack([columns, rows], 1).astype(np.float32)
    colours = image.reshape(-1, 3)[order].astype(np.float32)
    sxy, srgb = np.float32(parameters.bilateral_sxy), np.float32(parameters.bilateral_srgb)
    bilateral = np.concatenate([positions / sxy, colours / srgb], 1)
    return positions / np.float32(parameters.gaussian_sxy), bilateral


def blockwise_order(height: int, width: int) -> NDArray[np.int64]:
    """Returns the (N,) row-major indices of the pixels, block by block, row-major within each block."""
    rows, columns = np.divmod(np.arange(height * width), width)
    blocks = rows // BLOCK * (-(-width // BLOCK)) + columns // BLOCK
    return np.argsort(blocks, kind="stable")
