"""Fully connected CRF by mean-field inference, many runs over one image at a time.

The model is that of Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011: unary -log p, Potts compatibility, a Gaussian kernel on positions and a bilateral
kernel on positions and colours, both symmetrically normalised. The kernels depend on the image only, so that
their lattices are built once and filter eight runs at a time.

Names of dimensions: R runs, K classes, N = H * W pixels.
"""

import numpy as np
from numpy.typing import NDArray

from ome.crf.inputs import (
    LEAST_PROBABILITY,
    CrfParameters,
    blockwise_order,
    check_image,
    check_powers,
    kernel_features,
    log_probabilities,
)
from ome.crf.lattice import join, splat_blur_slice, symmetric_kernel
from ome.crf.mean_field import EXP_RANGE, Flags, mean_field
from ome.crf.packing import pack, row_width, unpack, unpack_winners
from ome.crf.simplices import Float
from ome.crf.vectors import LANES


class DenseCrf:
    """The CRF of one image. The kernels release the GIL, so that threads can refine several images.

    Args:
        image: (H, W, 3) uint8.
        parameters: Constants of the CRF.

    Raises:
        ValueError: The image has another shape or dtype.
    """

    def __init__(self, image: NDArray[np.uint8], parameters: CrfParameters | None = None) -> None:
        check_image(image)
        self.parameters = parameters or CrfParameters()
        self.height, self.width = image.shape[:2]
        self._order = blockwise_order(self.height, self.width)
        features = kernel_features(image, self.parameters, self._order)
        weights = self.parameters.gaussian_weight, self.parameters.bilateral_weight
        lattice = join(*map(symmetric_kernel, features, weights))
        # The largest possible message to each pixel: that of a class with probability 1 at all pixels.
        messages = splat_blur_slice(lattice, np.ones((len(self._order), LANES), np.float32))
        self._agreement = np.ascontiguousarray(messages[:, 0])
        self._stabilise = bool(self._agreement.max() > EXP_RANGE)
        self._lattice = lattice._replace(vertices=lattice.vertices.ravel(), weights=lattice.weights.ravel())

    def infer(self, probabilities: NDArray[np.floating]) -> Float:
        """Refines one stack.

        Args:
            probabilities: (K, H, W) in [0, 1], clipped to at least 1e-5; need not sum to 1 over classes.

        Returns:
            (K, H, W) float32 class probabilities.

        Raises:
            ValueError: The stack is empty, not finite or of another size than the image.
        """
        energy = log_probabilities(probabilities, (self.height, self.width))
        powers = np.ones((1, len(energy)), np.float32)
        values = self._run(energy, powers, self._workspace(row_width(1, len(energy))))
        refined = np.empty_like(energy)
        unpack(values, self._order, refined)
        return refined.reshape(-1, self.height, self.width)

    def winners(self, probabilities: NDArray[np.floating], powers: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Refines variants of one stack, eight at a time, and returns the most probable classes.

        Args:
            probabilities: (K, H, W) in [0, 1], K up to 255.
            powers: (R, K), all above 0: run r refines `probabilities ** powers[r]`, clipped to at least 1e-5.

        Returns:
            (R, H, W) uint8 class of the largest probability.

        Raises:
            ValueError: As for `infer`, or the powers have another shape or are not above 0.
        """
        energy = log_probabilities(probabilities, (self.height, self.width))
        powers = np.asarray(powers, np.float32)
        check_powers(powers, len(energy))
        winners = np.empty((len(powers), energy.shape[1]), np.uint8)
        width = max(row_width(1, len(energy)), row_width(LANES, len(energy)) - LANES)
        workspace = self._workspace(width)  # of all bundles: allocating memory takes as long as an update
        for first in range(0, len(powers), LANES):
            values = self._run(energy, powers[first : first + LANES], workspace)
            unpack_winners(values, self._order, winners[first : first + LANES])
        return winners.reshape(-1, self.height, self.width)

    def _workspace(self, width: int) -> Float:
        """Memory for the sums of two iterations, with `width` values per vertex."""
        return np.empty((2, self._lattice.num_vertices * width), np.float32)

    def _run(self, energy: Float, powers: Float, workspace: Float) -> Float:
        """Refines a bundle of up to eight runs; returns the rows of `mean_field`, (N, W) float32."""
        runs, classes = powers.shape
        values = np.empty((energy.shape[1], row_width(runs, classes)), np.float32)
        pack(energy, powers, np.log(np.float32(LEAST_PROBABILITY)), self._order, values)
        flags = Flags(runs == 1, self._stabilise, first=True, last=False)
        mean_field(self._lattice, values, self._agreement, workspace, self.parameters.iterations, flags)
        return values
