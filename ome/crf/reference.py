"""The fully connected CRF of pydensecrf, for comparison."""

import numpy as np
from numpy.typing import NDArray

from ome.crf.inputs import LEAST_PROBABILITY, CrfParameters, check_image, check_powers, check_stack
from ome.crf.simplices import Float
from ome.extras import require


class ReferenceDenseCrf:
    """The same CRF as `DenseCrf`, computed by pydensecrf, one run after another.

    Raises:
        UserError: pydensecrf is not installed.
        ValueError: The image has another shape or dtype.
    """

    def __init__(self, image: NDArray[np.uint8], parameters: CrfParameters | None = None) -> None:
        require("reference", "crf.backend=pydensecrf", "type crf.backend=lattice")
        import pydensecrf.densecrf  # noqa: PLC0415 - part of an extra

        check_image(image)
        self._dense_crf = pydensecrf.densecrf.DenseCRF2D
        self._image = np.array(image, order="C")  # pydensecrf refuses read-only arrays
        self.parameters = parameters or CrfParameters()

    def infer(self, probabilities: NDArray[np.floating]) -> Float:
        """Refines one stack (K, H, W), see `DenseCrf.infer`."""
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
        stack, powers = np.asarray(probabilities, np.float32), np.asarray(powers, np.float32)
        check_powers(powers, len(stack))
        variants = [self.infer(stack ** run[:, None, None]) for run in powers]
        return np.stack([variant.argmax(0).astype(np.uint8) for variant in variants])
