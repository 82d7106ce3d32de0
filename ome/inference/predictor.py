"""Prediction with trained segmenters: image batches to probabilities."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ome.crf.inputs import Crf
from ome.crf.torch_crf import BatchCrf
from ome.data.transforms import to_device
from ome.geo.sliding import PredictBatch
from ome.inference.outputs import on_host
from ome.networks.views import Tta, flip_and_scale
from ome.pseudo.labellers import tiles_in_memory
from ome.training.hardware import autocast, channels_last


class Predictor:
    """A trained segmenter: image batches (B, H, W, bands) uint8 to probabilities (B, C, H, W) float32.

    Args:
        network: Returns the logits of images.
        device: Device of the network and of the probabilities.
        scales: Factors by which each image is resized; the probabilities are averaged.
        flip: Whether to predict also the horizontal mirror image.
        tta: `d4` predicts all eight orientations instead, whatever `flip` is.
        precision: Precision of the network, see `autocast`; probabilities are averaged in float32.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        scales: Sequence[float] = (1.0,),
        *,
        flip: bool = False,
        tta: Tta | None = None,
        precision: str = "32-true",
    ) -> None:
        self._network = channels_last(network.to(device)).eval()
        self._device = device
        self._precision = precision
        self._scales = tuple(float(scale) for scale in scales)
        self._orientations: Any = {"flip": flip, "tta": tta}

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """Predicts one batch, without waiting for a GPU."""
        return flip_and_scale(
            self._logits, to_device(images, self._device), self._scales, **self._orientations
        )

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self._device, self._precision):
            logits: Tensor = self._network(images)
        return logits.float()


class Ensemble:
    """Predictors whose probabilities are averaged."""

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self._predictors = tuple(predictors)

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """Predicts one batch."""
        first, *others = (predict(images) for predict in self._predictors)
        return sum(others, start=first) / len(self._predictors)


class CrfPredictor:
    """A predictor whose probabilities are refined by the CRF, window by window.

    Args:
        predict: Returns the probabilities.
        crf_of: Returns the CRF of a picture (H, W, 3) uint8.
        places: Indices of the three bands of an image that make up the picture.
        threads: Number of windows that are refined at the same time.
    """

    def __init__(
        self,
        predict: PredictBatch,
        crf_of: Callable[[NDArray[np.uint8]], Crf],
        places: Sequence[int],
        threads: int,
    ) -> None:
        self._predict = predict
        self._crf_of = crf_of
        self._places = list(places)
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predicts one batch."""
        probabilities = on_host(torch.as_tensor(self._predict(images)), "the probabilities of the segmenter")
        return np.stack(list(self._pool.map(self._refine, images, probabilities)))

    def _refine(self, image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._crf_of(np.ascontiguousarray(image[..., self._places])).infer(probabilities)


class BatchCrfPredictor:
    """A predictor whose probabilities are refined by the CRF on their device, several windows in one pass.

    Args:
        predict: Returns the probabilities.
        crf_of: Returns the CRFs of pictures (B, 3, H, W) uint8 on their device.
        places: Indices of the three bands of an image that make up the picture.
    """

    def __init__(
        self, predict: PredictBatch, crf_of: Callable[[Tensor], BatchCrf], places: Sequence[int]
    ) -> None:
        self._predict = predict
        self._crf_of = crf_of
        self._places = list(places)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """Predicts one batch."""
        probabilities = torch.as_tensor(self._predict(images))
        bands = torch.from_numpy(images[..., self._places])
        pictures = bands.to(probabilities.device).permute(0, 3, 1, 2)
        most = tiles_in_memory(probabilities.device, tuple(probabilities.shape[1:]))
        parts = zip(torch.split(pictures, most), torch.split(probabilities, most), strict=True)
        return torch.cat([self._crf_of(part).infer(maps) for part, maps in parts])
