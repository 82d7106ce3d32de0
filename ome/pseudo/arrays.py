"""The CRF and the pseudo labels for a user's class maps, without a configuration."""

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
from ome.pseudo.fusion import normalise_cam, undecided_where_silent
from ome.pseudo.uncertainty import Labelling, PseudoLabel
from ome.pseudo.uncertainty import pseudo_label as label_of


def dense_crf(
    image: NDArray[np.uint8], probabilities: NDArray[Any] | Tensor, parameters: CrfParameters | None = None
) -> NDArray[np.float32]:
    """Refines the class probabilities of an image by the fully connected CRF.

    Args:
        image: (H, W, 3) uint8.
        probabilities: (C, H, W) in [0, 1].
        parameters: Constants of the CRF; None for the paper's.

    Returns:
        (C, H, W) float32, the probabilities after mean-field inference.

    Raises:
        UserError: A shape, type or value does not fit.
    """
    image, maps = _image(image), _maps(probabilities)
    if maps.shape[1:] != image.shape[:2]:
        raise UserError(
            f"probabilities of {maps.shape[1:]} pixels do not fit an image of {image.shape[:2]}: resize them"
        )
    if maps.min() < 0 or maps.max() > 1 + 1e-4:
        raise UserError(f"probabilities lie in 0..1, not {maps.min():g}..{maps.max():g}: give their softmax")
    return DenseCrf(image, parameters or CrfParameters()).infer(maps)


def pseudo_label(
    image: NDArray[np.uint8],
    cams: NDArray[Any] | Tensor,
    tags: Sequence[int] | None = None,
    labelling: Labelling | None = None,
    parameters: CrfParameters | None = None,
) -> PseudoLabel:
    """Makes the pseudo mask of an image and its weights from class activation maps of any origin.

    Maps of another size are resized bilinearly. Each tagged class is clipped at 0 and stretched to 0..1 on
    its own, as the stage `cam` does; maps that are normalised already stay as they are, to 1e-5.

    Args:
        image: (H, W, 3) uint8.
        cams: (C, h, w), raw or normalised, of any stride.
        tags: (C,) of 0 and 1; None where a class without a tag has an empty map.
        labelling: How maps become masks and weights; None for the paper's way.
        parameters: Constants of the CRF; None for the paper's.

    Raises:
        UserError: A shape, type or value does not fit.
    """
    image, maps = _image(image), _maps(cams)
    check_form(maps, image.shape[:2], "cams")
    given = np.ones(len(maps)) if tags is None else _array(tags)
    if given.shape != (len(maps),) or not np.isin(given, (0, 1)).all():
        raise UserError(f"tags are one 0 or 1 for each of the {len(maps)} classes, not {tags}")
    if not given.any():
        raise UserError("no class is tagged: leave the image out")
    return label_of(
        DenseCrf(image, parameters or CrfParameters()),
        normalised(maps, image.shape[:2], given),
        labelling,
    )


def normalised(maps: NDArray[np.float32], size: tuple[int, ...], tags: NDArray[Any]) -> NDArray[np.float32]:
    """Maps (C, h, w) at a size (H, W), those of tagged classes stretched to 0..1, the others 0."""
    resized = torch.from_numpy(maps)[None]
    if maps.shape[1:] != size:
        resized = F.interpolate(resized, size=size, mode="bilinear", align_corners=False)
    present = torch.as_tensor(np.asarray(tags))
    result: NDArray[np.float32] = undecided_where_silent(normalise_cam(resized[0], present), present).numpy()
    return result


def check_form(maps: NDArray[np.float32], size: tuple[int, ...], name: str) -> None:
    """Refuses maps of another form than their image, such as turned ones, which a resize would distort.

    Args:
        maps: (C, h, w) of one stride along both axes, to a cell.
        size: Height and width of the image.
        name: What the error calls them.

    Raises:
        UserError: Their sides have another ratio.
    """
    (height, width), (rows, columns) = size, maps.shape[1:]
    if not (rows - 1) * width <= height * (columns + 1) or not (columns - 1) * height <= width * (rows + 1):
        raise UserError(
            f"{name} are {rows} x {columns} (height x width), their image {height} x {width}: give maps of "
            "the image's form, (C, height / stride, width / stride)"
        )


def _array(given: object) -> NDArray[Any]:
    """An array of whatever was given; of lists of different lengths one that no check lets pass."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float() if given.dtype == torch.bfloat16 else given
    try:
        return np.asarray(given)
    except ValueError:
        return np.asarray(None)


def _image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    given = _array(image)
    if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3:
        raise UserError(f"an image is (H, W, 3) uint8, not {given.shape} {given.dtype}")
    return np.ascontiguousarray(given)


def _maps(maps: NDArray[Any] | Tensor) -> NDArray[np.float32]:
    given = _array(maps)
    if given.ndim != 3 or not given.size or given.dtype.kind not in "fiub":
        raise UserError(f"class maps are (C, H, W) numbers, not {given.shape} {given.dtype}")
    if (result := finite_maps(given)) is None:
        raise UserError("class maps hold nan, infinite or huge values: replace them, e.g. by np.nan_to_num")
    return result


def finite_maps(maps: NDArray[Any]) -> NDArray[np.float32] | None:
    """A float32 copy of numbers, which torch may write to; None where one is nan, infinite or too large."""
    with np.errstate(over="ignore"):
        result = np.array(maps, dtype=np.float32, order="C")
    return result if np.isfinite(result).all() else None
