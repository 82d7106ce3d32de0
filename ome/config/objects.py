"""Converts parts of the configuration to the typed arguments of the packages below."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from ome.config.trainer import HARDWARE
from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import Crf, CrfParameters
from ome.crf.reference import ReferenceDenseCrf
from ome.crf.torch_crf import BatchCrf, TorchCrf
from ome.data.transforms import Augmentation
from ome.distributed.processes import process_cores
from ome.geo.sliding import PredictBatch
from ome.inference.predictor import BatchCrfPredictor, CrfPredictor
from ome.progress import console
from ome.pseudo.labellers import BatchLabeller, Labeller, TileLabeller
from ome.pseudo.uncertainty import Labelling
from ome.training.hardware import Hardware
from ome.training.optimizers import Optimization


def augmentation(settings: DictConfig, crop: int) -> Augmentation:
    """The augmentation of training tiles, with random crops of `crop` pixels."""
    low, high = settings.scale
    brightness, contrast, saturation, hue = settings.jitter
    jitter = (float(brightness), float(contrast), float(saturation), float(hue))
    return Augmentation(crop, (float(low), float(high)), jitter, bool(settings.dihedral))


def is_frozen(choice: bool | Literal["auto"], weights: str | None) -> bool:
    """Whether pretrained layers are frozen; `auto`: if there are pretrained weights."""
    return weights is not None if choice == "auto" else choice


def warn_if_random(weights: str | None, what: str, key: str) -> None:
    """Warns that a network starts from random weights."""
    if weights is None:
        line = (
            f"the {what} starts from random weights, which makes poor maps: type {key}=FILE, or "
            "backbone=efficientnet_lite0, whose ImageNet weights come with ome[weights]"
        )
        console.print(line, style="bold red", markup=False)


def optimization(settings: DictConfig, total_steps: int) -> Optimization:
    """Optimiser and schedule of a stage, whose warm-up is a fraction of all steps."""
    optional = ("schedule", "norm_decay", "layer_decay")
    return Optimization(
        settings.lr,
        settings.momentum,
        settings.weight_decay,
        settings.power,
        settings.get("optimizer", "sgd"),
        warmup=round(settings.get("warmup", 0.0) * total_steps),
        **{key: settings[key] for key in optional if key in settings},
    )


def hardware(config: DictConfig) -> Hardware:
    """Devices, precision and loader processes."""
    return Hardware(**{key: config.trainer[key] for key in HARDWARE})


def crf_backend(config: DictConfig) -> str:
    """The configured back end; `auto` is torch if this process uses a GPU, else lattice."""
    backend: str = config.crf.backend
    if backend != "auto":
        return backend
    return "torch" if hardware(config).uses_gpu else "lattice"


def crf_of(config: DictConfig) -> Callable[[NDArray[np.uint8]], Crf]:
    """Returns a function that builds the CRF of an image (H, W, 3) uint8.

    Raises:
        UserError: A GPU is configured and there is none.
    """
    backend, parameters = crf_backend(config), _crf_parameters(config)
    kinds: dict[str, Callable[..., Crf]]
    kinds = {"lattice": DenseCrf, "torch": TorchCrf, "pydensecrf": ReferenceDenseCrf}
    options = {"device": hardware(config).device()} if backend == "torch" else {}
    return partial(kinds[backend], parameters=parameters, **options)


def _crf_parameters(config: DictConfig) -> CrfParameters:
    plain: dict[str, Any] = OmegaConf.to_container(config.crf, resolve=True)  # type: ignore[assignment]
    return CrfParameters(**{key: plain[key] for key in plain if key not in {"backend", "normalisation"}})


def labeller_of(config: DictConfig) -> Labeller:
    """Computes pseudo masks with the configured CRF: in torch several tiles per pass, otherwise one by one.

    Raises:
        UserError: See `crf_of` and `labelling_of`.
    """
    labelling = labelling_of(config)
    if crf_backend(config) != "torch":
        return TileLabeller(crf_of(config), labelling)
    crf = partial(BatchCrf, parameters=_crf_parameters(config))
    return BatchLabeller(crf, labelling, hardware(config).device())


def refined(predict: PredictBatch, config: DictConfig, places: Sequence[int]) -> PredictBatch:
    """A predictor whose probabilities the configured CRF refines: in torch on their device.

    Args:
        predict: Returns the probabilities.
        config: The configuration.
        places: Indices of the three bands of an image that make up the picture.

    Raises:
        UserError: See `crf_of`.
    """
    if crf_backend(config) != "torch":
        return CrfPredictor(predict, crf_of(config), places, crf_threads(config))
    return BatchCrfPredictor(predict, partial(BatchCrf, parameters=_crf_parameters(config)), places)


def labelling_of(config: DictConfig) -> Labelling:
    """How class maps become pseudo masks and weights, from the settings of the stage and of the CRF.

    Raises:
        UserError: A value is out of its range.
    """
    settings = config.stage
    return Labelling(
        tuple(float(scale) for scale in settings.response_scales),
        config.crf.normalisation,
        settings.mask,
        settings.background,
        settings.agreement,
        config.quirks.background_read_first,
    )


def crf_threads(config: DictConfig) -> int:
    """The number of tiles whose CRF runs at the same time: as configured, or one for each core.

    On a GPU it is one: a tile keeps the GPU busy, and the memory limit is that of one tile.
    """
    if crf_backend(config) == "torch" and hardware(config).uses_gpu:
        return 1
    return config.stage.threads or process_cores()
