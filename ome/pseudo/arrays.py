"""The CRF and the pseudo masks for class maps of the user's, as functions of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import CrfParameters
from ome.errors import UserError
from ome.ignore import IGNORE
from ome.pseudo.fusion import normalise_cam, replace_zero_cams
from ome.pseudo.uncertainty import Labelling, PseudoLabel
from ome.pseudo.uncertainty import pseudo_label as label_of


def dense_crf(
    image: NDArray[np.uint8], probabilities: NDArray[Any] | Tensor, parameters: CrfParameters | None = None
) -> NDArray[np.float32]:
    """Refines the class probabilities of an image with the fully connected CRF.

    Args:
        image: (H, W, 3) uint8.
        probabilities: (C, H, W) in [0, 1], with the sum 1 at each pixel (to 1e-2).
        parameters: Constants of the CRF; None for those of the paper.

    Returns:
        (C, H, W) float32, the probabilities after mean-field inference.

    Raises:
        UserError: A shape, type or value does not fit.
    """
    image, maps = _image(image), _maps(probabilities)
    _check_type(parameters, CrfParameters, "parameters")
    if maps.shape[1:] != image.shape[:2]:
        raise UserError(
            f"probabilities of {maps.shape[1:]} pixels do not fit an image of {image.shape[:2]}: resize them"
        )
    if maps.min() < 0 or maps.max() > 1 + 1e-4:
        raise UserError(f"probabilities lie in 0..1, not {maps.min():g}..{maps.max():g}: give their softmax")
    sums = maps.sum(axis=0)
    if np.abs(sums - 1).max() > 1e-2:  # half precision stays below
        raise UserError(
            f"probabilities of a pixel sum to {sums.min():g}..{sums.max():g}, not to 1: give their softmax, "
            "or divide them by their sum"
        )
    return DenseCrf(image, parameters or CrfParameters()).infer(maps)


def pseudo_label(
    image: NDArray[np.uint8],
    cams: NDArray[Any] | Tensor,
    tags: Sequence[int] | None = None,
    labelling: Labelling | None = None,
    parameters: CrfParameters | None = None,
) -> PseudoLabel:
    """Computes the pseudo mask of an image and its weights from class activation maps of any origin.

    Maps of another size are resized bilinearly. The map of each tagged class is clipped at 0 and stretched to
    0..1, as in stage `cam`; this changes maps that are already normalised by at most 1e-5.

    Args:
        image: (H, W, 3) uint8.
        cams: (C, h, w), raw or normalised, of any stride.
        tags: (C,) of 0 and 1; None if the maps of classes without a tag are 0.
        labelling: How maps become masks and weights; None for the settings of the paper.
        parameters: Constants of the CRF; None for those of the paper.

    Raises:
        UserError: A shape, type or value does not fit.
    """
    image, maps = _image(image), _maps(cams)
    _check_type(parameters, CrfParameters, "parameters")
    _check_type(labelling, Labelling, "labelling")
    if len(maps) >= IGNORE:
        raise UserError(f"cams are maps of {len(maps)} classes: a mask holds {IGNORE - 1} and a background")
    check_form(maps, image.shape[:2], "cams")
    tagged = np.ones(len(maps)) if tags is None else _array(tags)
    if tagged.shape != (len(maps),) or not np.isin(tagged, (0, 1)).all():
        raise UserError(f"tags={tags}: give one 0 or 1 for each of the {len(maps)} classes")
    if not tagged.any():
        raise UserError("no class is tagged: leave the image out")
    crf = DenseCrf(image, parameters or CrfParameters())
    return label_of(crf, normalised(maps, image.shape[:2], tagged), labelling)


def normalised(maps: NDArray[np.float32], size: tuple[int, ...], tags: NDArray[Any]) -> NDArray[np.float32]:
    """Resizes maps (C, h, w) to (H, W), and stretches those of tagged classes to 0..1; others become 0."""
    resized = torch.from_numpy(maps)[None]
    if maps.shape[1:] != size:
        resized = F.interpolate(resized, size=size, mode="bilinear", align_corners=False)
    present = torch.as_tensor(np.asarray(tags))
    result: NDArray[np.float32] = replace_zero_cams(normalise_cam(resized[0], present), present).numpy()
    return result


def check_form(maps: NDArray[np.float32], size: tuple[int, ...], name: str) -> None:
    """Checks that maps have the aspect ratio of their image, to one cell; rotated maps, for example, do not.

    Args:
        maps: (C, h, w), of the same stride along both axes.
        size: Height and width of the image.
        name: Name of the maps in the error.

    Raises:
        UserError: The aspect ratio differs.
    """
    (height, width), (rows, columns) = size, maps.shape[1:]
    if not (rows - 1) * width <= height * (columns + 1) or not (columns - 1) * height <= width * (rows + 1):
        raise UserError(
            f"{name} are {rows} x {columns} (height x width), their image {height} x {width}: give maps of "
            "the image's form, (C, height / stride, width / stride)"
        )


def _check_type(value: object, kind: type, name: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise UserError(
            f"{name} is of the type {type(value).__name__}: give {kind.__module__}.{kind.__name__}"
        )


def _array(values: object) -> NDArray[Any]:
    """Converts to an array; what is none becomes one of shape (), which every check refuses.

    Raises:
        UserError: Entries are masked, whose values mean nothing.
    """
    if np.ma.is_masked(values):
        raise UserError("an array has masked entries: fill them, e.g. by array.filled(0)")
    try:
        if isinstance(values, Tensor):
            values = values.detach().cpu()
            values = values.float() if values.dtype == torch.bfloat16 else values
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError):  # lists of different lengths; sparse and meta tensors
        return np.asarray(None)


def _image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array = _array(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise UserError(f"an image is (H, W, 3) uint8, not {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def _maps(maps: NDArray[Any] | Tensor) -> NDArray[np.float32]:
    array = _array(maps)
    if array.ndim != 3 or not array.size or array.dtype.kind not in "fiub":
        raise UserError(f"class maps are (C, H, W) numbers, not {array.shape} {array.dtype}")
    if (result := finite_maps(array)) is None:
        raise UserError("class maps have nan, infinite or huge values: replace them, e.g. by np.nan_to_num")
    return result


def finite_maps(maps: NDArray[Any]) -> NDArray[np.float32] | None:
    """A writable float32 copy of numbers; None if one of them is nan, infinite or too large for float32."""
    with np.errstate(over="ignore"):
        result = np.array(maps, dtype=np.float32, order="C")
    return result if np.isfinite(result).all() else None
