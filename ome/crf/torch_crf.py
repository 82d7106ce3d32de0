"""The fully connected CRF of `ome.crf.densecrf` in torch, on any device, for many tiles at a time.

It is meant for a GPU: one pass over the lattice serves many tiles and runs. Its conventions are those of
`DenseCrf`. Mean-field updates use the kernels of `ome.crf.triton_kernels` on a GPU with Triton, and torch's
`embedding_bag` elsewhere. The mean-field loop never synchronises with the device.

Names of dimensions: B tiles, R runs, K classes, N = B * H * W pixels.
"""

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.crf.inputs import LEAST_PROBABILITY, CrfParameters, check_image, check_powers
from ome.crf.simplices import Float
from ome.crf.torch_lattice import pixel_features, splat_blur_slice, symmetric_kernel

Engine = Literal["triton", "torch"]
BUNDLE: Final = 16
"""Runs at a time, by which a GPU is busy."""


class BatchCrf:
    """Independent CRFs of several tiles of one size, on the device of their images.

    Results are reproducible bit by bit on one device; another device or `DenseCrf` differs by rounding.

    Args:
        images: (B, 3, H, W) uint8.
        parameters: Constants of the CRF.
        bundle: Maximum number of runs at a time. It limits the memory: each pixel, class and run needs about
            16 + 8 V / N bytes, and the lattice of colours has up to five vertices V per pixel in fine
            texture.
        engine: Implementation of mean field; None for Triton on a GPU if it is installed, else torch.

    Raises:
        ValueError: The images have another shape or dtype.
    """

    def __init__(
        self,
        images: Tensor,
        parameters: CrfParameters | None = None,
        bundle: int = BUNDLE,
        engine: Engine | None = None,
    ) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8 or images.numel() == 0:
            raise ValueError(
                f"the CRF needs (B, 3, H, W) uint8 images, not {tuple(images.shape)} {images.dtype}"
            )
        self.parameters = parameters or CrfParameters()
        self.bundle = bundle
        has_triton = images.is_cuda and importlib.util.find_spec("triton") is not None
        self.engine = engine or ("triton" if has_triton else "torch")
        self._tiles, _, self._height, self._width = images.shape
        self._lattices = [
            symmetric_kernel(features, weight, self._tiles)
            for features, weight in zip(
                pixel_features(images, self.parameters),
                (self.parameters.gaussian_weight, self.parameters.bilateral_weight),
                strict=True,
            )
        ]
        ones = torch.ones(self._tiles * self._height * self._width, 1, device=images.device)
        self._agreement = self._messages(ones)[:, 0]
        self._mean_field: Callable[[Tensor, Tensor, bool], Tensor] = self._mean_field_by_torch
        if self.engine == "triton":
            from ome.crf import triton_field  # noqa: PLC0415 - imports Triton, which may not be installed

            joined = triton_field.join(*self._lattices)
            self._mean_field = partial(
                triton_field.mean_field, joined, self._agreement, self.parameters.iterations
            )

    def infer(self, probabilities: Tensor) -> Tensor:
        """Refines the stack of each tile.

        Args:
            probabilities: (B, K, H, W) in [0, 1], clipped to at least 1e-5; need not sum to 1 over classes.

        Returns:
            (B, K, H, W) float32 class probabilities.

        Raises:
            ValueError: The stacks are empty, not finite or of another size than the images.
        """
        energy = self._energy(probabilities)
        refined = self._mean_field(energy, torch.ones_like(energy[:1]), False)
        return refined.view(self._tiles, self._height, self._width, -1).permute(0, 3, 1, 2).contiguous()

    def winners(self, probabilities: Tensor, powers: NDArray[np.floating]) -> Tensor:
        """Refines variants of each tile's stack, `bundle` at a time, and returns the most probable classes.

        Args:
            probabilities: (B, K, H, W) in [0, 1], K up to 255.
            powers: (R, K), all above 0: run r refines `probabilities ** powers[r]` of every tile.

        Returns:
            (B, R, H, W) uint8 class of the largest probability.

        Raises:
            ValueError: As for `infer`, or the powers have another shape or are not above 0.
        """
        energy, exponents = self._energy(probabilities), np.asarray(powers, np.float32)
        check_powers(exponents, energy.shape[1])
        runs = torch.from_numpy(exponents).to(energy.device)
        masks = [
            self._mean_field(energy, runs[first : first + self.bundle], True)
            for first in range(0, len(runs), self.bundle)
        ]
        stacked = torch.cat(masks, 1).view(self._tiles, self._height, self._width, -1)
        return stacked.permute(0, 3, 1, 2).contiguous()

    def _energy(self, probabilities: Tensor) -> Tensor:
        """Checks stacks and returns their (N, K) logarithms, -inf for 0."""
        size = self._height, self._width
        if probabilities.ndim != 4 or len(probabilities) != self._tiles:
            raise ValueError(f"the CRF needs {self._tiles} stacks of maps, not {tuple(probabilities.shape)}")
        if probabilities.shape[2:] != size or probabilities.numel() == 0:
            raise ValueError(
                f"the CRF needs at least one map of size {size}, not {tuple(probabilities.shape)}"
            )
        if not (probabilities.isfinite() & (probabilities >= 0)).all():
            raise ValueError("the CRF's probabilities contain nan, infinity or negative numbers")
        energy = probabilities.float().clamp(max=1).log()
        return energy.permute(0, 2, 3, 1).flatten(0, 2).contiguous()

    def _mean_field_by_torch(self, energy: Tensor, powers: Tensor, winners: bool) -> Tensor:
        """Runs mean field on one bundle.

        Args:
            energy: (N, K) log-probabilities.
            powers: (R, K) factors on them.
            winners: Whether to return the class of the largest probability.

        Returns:
            (N, R) uint8 classes, or (N, R, K) class probabilities.
        """
        unary = (energy[:, None] * powers).clamp(min=math.log(LEAST_PROBABILITY))
        probabilities = unary.softmax(2)
        # A single class has probability 1 everywhere, and there would be no message to compute.
        for _ in range(self.parameters.iterations if unary.shape[2] > 1 else 0):
            # Messages of all classes sum to the agreement, so that of the last class needs no filtering.
            messages = self._messages(probabilities[..., :-1].flatten(1)).view(*unary.shape[:2], -1)
            rest = self._agreement[:, None] - messages.sum(2)
            probabilities = (unary + torch.cat([messages, rest[..., None]], 2)).softmax(2)
        return probabilities.argmax(2).byte() if winners else probabilities

    def _messages(self, values: Tensor) -> Tensor:
        """Applies both kernels to (N, W) values and returns (N, W) messages."""
        gaussian, bilateral = (splat_blur_slice(lattice, values) for lattice in self._lattices)
        return gaussian + bilateral


class TorchCrf:
    """A `BatchCrf` of one image with NumPy arrays as input and output.

    Args:
        image: (H, W, 3) uint8.
        parameters: Constants of the CRF.
        device: Device for all computations.
        bundle: See `BatchCrf`.
        engine: See `BatchCrf`.

    Raises:
        ValueError: The image has another shape or dtype.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        parameters: CrfParameters | None = None,
        device: torch.device | str = "cpu",
        bundle: int = BUNDLE,
        engine: Engine | None = None,
    ) -> None:
        check_image(image)
        self.device = torch.device(device)
        tile = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None]
        self._batch = BatchCrf(tile, parameters, bundle, engine)

    def infer(self, probabilities: NDArray[np.floating]) -> Float:
        """Refines one stack (K, H, W), see `DenseCrf.infer`."""
        refined: Float = self._batch.infer(self._stack(probabilities))[0].cpu().numpy()
        return refined

    def winners(self, probabilities: NDArray[np.floating], powers: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Refines variants of one stack, `bundle` at a time, see `DenseCrf.winners`."""
        masks: NDArray[np.uint8] = self._batch.winners(self._stack(probabilities), powers)[0].cpu().numpy()
        return masks

    def _stack(self, probabilities: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.array(probabilities, np.float32))[None].to(self.device)
