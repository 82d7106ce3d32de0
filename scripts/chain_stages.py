"""The stages of a published chain on synthetic tiles, which `bench_chain.py` times."""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from chain_clock import Clock, stepper
from measuring import Bytes, shifted, smooth_noise, synthetic_image
from omegaconf import DictConfig

from ome.config.objects import crf_of, hardware, is_frozen, labelling_of, optimization
from ome.config.recipes import loss_of
from ome.config.sections import settings_of
from ome.config.segmenting import segmenter_learner
from ome.data.transforms import to_tensor
from ome.geo.sliding import predict_windows
from ome.inference.classifier import DEFAULT_MEGAPIXELS, build_classifier
from ome.inference.map_rows import windows_at_a_time
from ome.inference.predictor import Predictor
from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import Segmenter, build_segmenter
from ome.pseudo.fusion import multi_scale_cams
from ome.pseudo.uncertainty import pseudo_label
from ome.training.hardware import autocast, channels_last, decided_precision
from ome.training.seam import SeamClassifier

STEPS: Final = 10**6
"""Steps of the schedules, of which the first are timed."""

PRESENT: Final = 3
"""Classes in a tile; the number of the CRF's runs is proportional to it."""


class Chain:
    """The stages of one experiment on synthetic tiles.

    Args:
        config: The composed experiment.
        clock: The clock.
        images: Tiles per step on a CPU.
    """

    def __init__(self, config: DictConfig, clock: Clock, images: int) -> None:
        self._config, self._clock = config, clock
        self._device, self._side = clock.device, int(config.dataset.tile.size)
        self._classes = len(config.dataset.classes)
        self._images = images if clock.device.type == "cpu" else None
        self._precision = decided_precision(hardware(config).precision, clock.device)

    def _batch(self, count: int, side: int) -> dict[str, torch.Tensor]:
        image = to_tensor(synthetic_image(side))
        mask = torch.randint(0, self._classes, (count, side, side))
        parts = {
            "image": shifted(image, count),
            "tags": torch.ones(count, self._classes),
            "mask": mask,
            "weight": torch.full_like(mask, 255, dtype=torch.uint8),
        }
        return {name: part.to(self._device) for name, part in parts.items()}

    def cam_step(self) -> float:
        """Returns the seconds per step of the classifier with the published batch."""
        settings = self._config.stage.cam
        side, count = settings.crop or self._side, self._images or settings.batch

        def work() -> Callable[[], None]:
            network = self._classifier()
            if is_frozen(self._config.backbone.freeze, "published"):
                network.freeze()
            names = [str(number) for number in range(self._classes)]
            rates = optimization(settings, STEPS)
            module = SeamClassifier(network, names, total_steps=STEPS, optimizer=rates, clip=settings.clip)
            return stepper(module, self._batch(count, side), self._precision)

        return self._clock.seconds(("cam", side, count), work) * int(settings.batch) / count

    def seg_step(self) -> float:
        """Returns the seconds per step of the segmenter with the published batch."""
        recipe = self._config.segmenter.recipe
        count = self._images or recipe.batch

        def work() -> Callable[[], None]:
            network = self._segmenter()
            loss = loss_of(self._config.segmenter, self._classes, lambda: [1.0] * self._classes)
            module = segmenter_learner(self._config, network, loss, STEPS)
            return stepper(module, self._batch(count, self._side), self._precision)

        return self._clock.seconds(("seg", self._side, count), work) * int(recipe.batch) / count

    def cam_tile(self) -> float:
        """Returns the seconds per tile for multi-scale CAMs."""
        settings, count = self._config.stage.cam.export, 1 if self._images else 16
        pixels = int(1e6 * (settings.megapixels or DEFAULT_MEGAPIXELS[self._device.type]))

        def work() -> Callable[[], None]:
            network = channels_last(self._classifier().to(self._device)).eval()
            batch = self._batch(count, self._side)

            def refined(images: torch.Tensor) -> torch.Tensor:
                with autocast(self._device, settings.precision):
                    maps: torch.Tensor = network(images).refined
                return maps

            @torch.inference_mode()
            def cams() -> None:
                multi_scale_cams(
                    refined, batch["image"], batch["tags"], settings.scales, settings.flip, pixels
                ).cpu()

            return cams

        return self._clock.seconds(("cams", self._side, count), work) / count

    def pseudo_tile(self) -> float:
        """Returns the seconds per pseudo mask, on one core or the GPU."""
        config, image = settings_of(self._config, "pseudo"), synthetic_image(self._side)
        on_cores = config.crf.backend != "torch"
        crf_for, labelling = crf_of(config), labelling_of(config)
        cam = np.zeros((self._classes, self._side, self._side), np.float32)
        cam[:PRESENT] = smooth_noise(np.random.default_rng(1), PRESENT, self._side, 6)

        def label() -> None:
            pseudo_label(crf_for(image), cam, labelling)

        label()  # numba compiles
        return self._clock.seconds(("pseudo", self._side), lambda: label, on_cores=on_cores)

    def refine_tile(self) -> float:
        """Returns the seconds per prediction of a training tile at the start of a round."""
        settings = self._config.stage.refine

        def work() -> Callable[[], object]:
            predict = self._predictor(list(settings.scales), flip=settings.flip)
            image = synthetic_image(self._side)[None]
            return lambda: predict(image)

        return self._clock.seconds(("refine", self._side), work)

    def megapixel(self) -> float:
        """Returns the seconds per megapixel of a map."""
        settings, side = self._config.prediction, self._side
        rows = columns = side * (2 if self._images else 16)
        pixels = np.tile(synthetic_image(side), (rows // side, columns // side, 1))

        def read(row: int, column: int, height: int, width: int) -> Bytes:
            return pixels[row : row + height, column : column + width]

        def work() -> Callable[[], None]:
            predict = self._predictor(list(settings.scales), flip=settings.flip)

            def mapped() -> None:
                stride = max(1, int(side * settings.stride))
                for _ in predict_windows(
                    read,
                    rows,
                    columns,
                    predict,
                    self._classes,
                    size=side,
                    stride=stride,
                    batch=windows_at_a_time(settings.batch, side, self._device),
                ):
                    pass

            return mapped

        # In a large scene, a pixel is in 1 / stride² windows; in this small one it is in fewer.
        windows = len(range(0, rows - side + 1, max(1, int(side * settings.stride)))) ** 2
        seconds = self._clock.seconds(("map", side), work) / (windows * side**2)
        return seconds * 1e6 / float(settings.stride) ** 2

    def _classifier(self) -> SeamNetwork:
        config = self._config
        return build_classifier(config.backbone, config.classifier, self._classes, 3, None)

    def _segmenter(self) -> Segmenter:
        settings = self._config.segmenter
        return build_segmenter(settings.name, settings.encoder, self._classes)

    def _predictor(self, scales: list[float], *, flip: bool) -> Predictor:
        return Predictor(self._segmenter(), self._device, scales, flip=flip, precision=self._precision)
