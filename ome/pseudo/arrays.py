"""Pseudo masks for class maps of the user's, as a function of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ome.crf.arrays import as_array, check_type, image_array, map_array
from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import CrfParameters
from ome.errors import UserError
from ome.ignore import IGNORE
from ome.pseudo.fusion import normalise_cam, replace_zero_cams
from ome.pseudo.uncertainty import Labelling, PseudoLabel
from ome.pseudo.uncertainty import pseudo_label as label_of


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
    image, maps = image_array(image), map_array(cams)
    check_type(parameters, CrfParameters, "parameters")
    check_type(labelling, Labelling, "labelling")
    if len(maps) >= IGNORE:
        raise UserError(f"cams are maps of {len(maps)} classes: a mask holds {IGNORE - 1} and a background")
    check_form(maps, image.shape[:2], "cams")
    tagged = np.ones(len(maps)) if tags is None else as_array(tags)
    if tagged.shape != (len(maps),) or not np.isin(tagged, (0, 1)).all():
        raise UserError(f"tags={tags}: give one 0 or 1 for each of the {len(maps)} classes")
    if not tagged.any():
        raise UserError("no class is tagged: leave the image out")
    crf = DenseCrf(image, parameters or CrfParameters())
    return label_of(crf, normalised(maps, image.shape[:2], tagged), labelling)


def normalised(
    maps: NDArray[np.float32],
    size: tuple[int, ...],
    tags: NDArray[Any],
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Resizes maps (C, h, w) to (H, W), and stretches those of tagged classes to 0..1; others become 0.

    Pixels without data, where `valid` (H, W) is false, become 0 as well; None if there are none.
    """
    resized = torch.from_numpy(maps)[None]
    if maps.shape[1:] != size:
        resized = F.interpolate(resized, size=size, mode="bilinear", align_corners=False)
    present = torch.as_tensor(np.asarray(tags))
    known = None if valid is None else torch.from_numpy(valid)
    result: NDArray[np.float32] = replace_zero_cams(
        normalise_cam(resized[0], present, known), present
    ).numpy()
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
