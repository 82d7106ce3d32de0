"""The CRF as a function of arrays, and checks of the arrays that a user gives."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import CrfParameters
from ome.errors import UserError


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
    image, maps = image_array(image), map_array(probabilities)
    check_type(parameters, CrfParameters, "parameters")
    if maps.shape[1:] != image.shape[:2]:
        last = maps.shape[:2] == image.shape[:2]
        remedy = "classes are first, give np.moveaxis(probabilities, 2, 0)" if last else "resize them"
        raise UserError(
            f"probabilities of {maps.shape[1:]} pixels do not fit an image of {image.shape[:2]}: {remedy}"
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


def check_type(value: object, kind: type, name: str) -> None:
    """Checks that an optional argument is of a type.

    Raises:
        UserError: It is not.
    """
    if value is not None and not isinstance(value, kind):
        raise UserError(
            f"{name} is of the type {type(value).__name__}: give {kind.__module__}.{kind.__name__}"
        )


def as_array(values: object) -> NDArray[Any]:
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


def image_array(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Checks an image, (H, W, 3) uint8, and returns it in C order.

    Raises:
        UserError: It has another shape or type.
    """
    array = as_array(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        remedy = _image_remedy(array)
        raise UserError(f"an image is (H, W, 3) uint8, not {array.shape} {array.dtype}{remedy}")
    return np.ascontiguousarray(array)


def _image_remedy(array: NDArray[Any]) -> str:
    if array.ndim == 2:
        return ": give np.stack([image] * 3, axis=-1)"
    if array.ndim != 3 or not array.size:
        return ": give the pixels of one image, e.g. rasterio.open(path).read().transpose(1, 2, 0)"
    if array.shape[2] != 3 and array.shape[0] == 3:
        return ": bands are last, give image.transpose(1, 2, 0)"
    if array.shape[2] != 3:
        return ": give three bands, e.g. image[..., [0, 1, 1]]"
    scale = "(image * 255)" if array.dtype.kind == "f" else "(image / image.max() * 255)"
    return f": give bytes, e.g. {scale}.astype(np.uint8)"


def map_array(maps: NDArray[Any] | Tensor) -> NDArray[np.float32]:
    """Checks class maps (C, H, W) of any numeric type, and returns a copy in float32.

    Raises:
        UserError: They have another shape or type, or values that are not finite.
    """
    array = as_array(maps)
    if array.ndim != 3 or not array.size or array.dtype.kind not in "fiub":
        remedies = {2: "maps[None] for one class", 4: "those of one image at a time, e.g. maps[0]"}
        remedy = remedies.get(array.ndim, "one array, e.g. np.stack of the maps of all classes")
        raise UserError(f"class maps are (C, H, W) numbers, not {array.shape} {array.dtype}: give {remedy}")
    if (result := finite_maps(array)) is None:
        raise UserError("class maps have nan, infinite or huge values: replace them, e.g. by np.nan_to_num")
    return result


def finite_maps(maps: NDArray[Any]) -> NDArray[np.float32] | None:
    """A writable float32 copy of numbers; None if one of them is nan, infinite or too large for float32."""
    with np.errstate(over="ignore"):
        result = np.array(maps, dtype=np.float32, order="C")
    return result if np.isfinite(result).all() else None
