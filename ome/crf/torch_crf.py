"""The fully connected CRF of `ome.crf.densecrf` in torch, on any device.

Meant for a GPU, where a pass over the lattice serves many runs. Its conventions are those of `DenseCrf`; the
lattices stay two, because only that of colours has more than three directions to blur. Nothing in the
mean-field loop waits for the device.

Names of dimensions: R runs, K classes, N = H * W pixels.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.crf.densecrf import (
    LEAST_PROBABILITY,
    CrfParameters,
    check_image,
    check_powers,
    kernel_features,
    log_probabilities,
)
from ome.crf.simplices import Float
from ome.crf.torch_lattice import splat_blur_slice, symmetric_kernel


class TorchCrf:
    """The CRF of one image on one device.

    A device gives the same bytes for the same input; another one, or `DenseCrf`, differs by rounding.

    Args:
        image: (H, W, 3) uint8.
        parameters: Constants of the CRF.
        device: Where to compute.
        bundle: Most runs at a time. It bounds the memory, of which each pixel, class and run takes about
            16 + 8 V / N bytes; the lattice of colours has up to five vertices V a pixel in fine texture.

    Raises:
        ValueError: If the image has another shape or type.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        parameters: CrfParameters | None = None,
        device: torch.device | str = "cpu",
        bundle: int = 16,
    ) -> None:
        check_image(image)
        self.parameters = parameters or CrfParameters()
        self.device = torch.device(device)
        self.bundle = bundle
        self.height, self.width = image.shape[:2]
        features = kernel_features(image, self.parameters, np.arange(self.height * self.width))
        weights = self.parameters.gaussian_weight, self.parameters.bilateral_weight
        self._lattices = [
            symmetric_kernel(torch.from_numpy(feature).to(self.device), weight)
            for feature, weight in zip(features, weights, strict=True)
        ]
        everywhere = torch.ones(self.height * self.width, 1, device=self.device)
        self._agreement = self._messages(everywhere)

    def infer(self, probabilities: NDArray[np.floating]) -> Float:
        """Refines one stack, see `DenseCrf.infer`."""
        energy = self._energy(probabilities)
        refined = self._mean_field(energy, torch.ones_like(energy[0]))[:, 0]
        stack: Float = refined.T.contiguous().cpu().numpy()
        return stack.reshape(-1, self.height, self.width)

    def winners(self, probabilities: NDArray[np.floating], powers: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Refines variants of one stack, `bundle` at a time, see `DenseCrf.winners`."""
        energy, exponents = self._energy(probabilities), np.asarray(powers, np.float32)
        check_powers(exponents, energy.shape[2])
        runs = torch.from_numpy(exponents).to(self.device)
        winners = [
            self._mean_field(energy, runs[first : first + self.bundle]).argmax(2).byte()
            for first in range(0, len(runs), self.bundle)
        ]
        masks: NDArray[np.uint8] = torch.cat(winners, 1).T.contiguous().cpu().numpy()
        return masks.reshape(-1, self.height, self.width)

    def _energy(self, probabilities: NDArray[np.floating]) -> Tensor:
        """Checks a stack and returns its (N, 1, K) logarithms on the device."""
        energy = log_probabilities(probabilities, (self.height, self.width))
        return torch.from_numpy(energy).to(self.device).T.contiguous()[:, None]

    def _mean_field(self, energy: Tensor, powers: Tensor) -> Tensor:
        """Runs mean field on one bundle.

        Args:
            energy: (N, 1, K) log-probabilities.
            powers: (R, K) factors on them.

        Returns:
            (N, R, K) class probabilities.
        """
        unary = (energy * powers).clamp(min=math.log(LEAST_PROBABILITY))
        probabilities = unary.softmax(2)
        # A single class is certain everywhere, and would leave nothing to carry.
        for _ in range(self.parameters.iterations if unary.shape[2] > 1 else 0):
            # Messages of all classes sum to the agreement: the last class need not go through the lattice.
            heard = self._messages(probabilities[..., :-1].flatten(1)).view(*unary.shape[:2], -1)
            rest = self._agreement - heard.sum(2)
            probabilities = (unary + torch.cat([heard, rest[..., None]], 2)).softmax(2)
        return probabilities

    def _messages(self, values: Tensor) -> Tensor:
        """Applies both kernels to (N, W) values and returns (N, W) messages."""
        gaussian, bilateral = (splat_blur_slice(lattice, values) for lattice in self._lattices)
        return gaussian + bilateral
