"""Pseudo masks and their weights, from the response scaling of class maps before the CRF.

Li, Zhang, Xiao, "One Model Is Enough: Toward Multiclass Weakly Supervised Remote Sensing Image Semantic
Segmentation", IEEE TGRS 61, 2023: a pixel is uncertain if its class changes when the CAM of one class is
raised to a power.

Names of dimensions: C classes of the dataset.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ome.crf.inputs import Crf
from ome.crf.simplices import Float
from ome.errors import UserError
from ome.ignore import IGNORE
from ome.pseudo.argmax import (
    decided,
    ignore_background,
    ignore_first_map,
    strongest,
    uniform_without_data,
    with_background,
)
from ome.pseudo.response import Normalisation, certainty_weight, response_variance

RESPONSE_SCALES: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
MaskSource = Literal["crf", "cam"]


@dataclass(frozen=True)
class Labelling:
    """How the class maps of a tile become pseudo labels.

    Args:
        response_scales: Powers to which the map of one class at a time is raised, at least one, all above 0.
        normalisation: "tile" stretches the uncertainty to 0..1 over the tile, "absolute" divides the variance
            by its largest possible value.
        mask: The argmax that becomes the pseudo mask: that of the CRF, or that of the CAM.
        background: Power of an additional background map, see `with_background`; None for no background.
        agreement: Factor in [0, 1] on the weight of pixels where the two argmaxes differ; 1 for no change.
        background_read_first: Whether to reproduce an error of the published code, see `ignore_first_map`.

    Raises:
        UserError: A value is out of its range.
    """

    response_scales: tuple[float, ...] = RESPONSE_SCALES
    normalisation: Normalisation = "tile"
    mask: MaskSource = "crf"
    background: float | None = None
    agreement: float = 1.0
    background_read_first: bool = False

    def __post_init__(self) -> None:
        for name, known in (("normalisation", get_args(Normalisation)), ("mask", get_args(MaskSource))):
            if getattr(self, name) not in known:
                raise UserError(f"pseudo masks: {name} is {getattr(self, name)}; choose {' or '.join(known)}")
        if not self.response_scales or not min(self.response_scales) > 0:
            scales = list(self.response_scales)
            raise UserError(f"pseudo masks: response_scales is {scales}; give numbers above 0, at least one")
        if self.background is not None and not self.background > 0:
            raise UserError(f"pseudo masks: background is {self.background}; give a power above 0, or null")
        if not 0 <= self.agreement <= 1:
            raise UserError(f"pseudo masks: agreement is {self.agreement}; give a factor of 0 to 1")


@dataclass(frozen=True)
class PseudoLabel:
    """Pseudo mask and weights of a tile.

    Args:
        mask: (H, W) uint8, the pseudo mask: class indices, or 255 for the background and where there are no
            data.
        weight: (H, W) uint8, from 0 (most uncertain, or no data) to 255 (certain).
        cam_argmax: (H, W) uint8, argmax of the CAM, with the same values as `mask`.
        probabilities: (C, H, W) float32, output of the CRF; (C + 1, H, W) with a background map.
    """

    mask: NDArray[np.uint8]
    weight: NDArray[np.uint8]
    cam_argmax: NDArray[np.uint8]
    probabilities: Float


def pseudo_label(
    crf: Crf,
    cam: NDArray[np.floating],
    labelling: Labelling | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> PseudoLabel:
    """Computes the pseudo mask of a tile and its weights.

    The CRF and the response scaling treat a background map as one more class.

    Args:
        crf: The CRF of the tile's image.
        cam: (C, H, W) normalised CAM in [0, 1]; 0 for classes that the tags exclude.
        labelling: Settings; by default those of the paper.
        valid: (H, W) bool, false for pixels without data; None if there are none.

    Raises:
        ValueError: The CAM is not (C, H, W) in [0, 1], or has more than 255 maps, a background map included.
    """
    labelling = labelling or Labelling()
    valid = np.ones(cam.shape[1:], bool) if valid is None else valid
    maps = checked_maps(cam, valid, labelling)
    probabilities = crf.infer(maps)
    present = np.unique(strongest(probabilities)[valid])
    variance = response_variance(crf, maps[present], labelling.response_scales)
    return label_of(maps, probabilities, variance, valid, labelling)


def checked_maps(cam: NDArray[np.floating], valid: NDArray[np.bool_], labelling: Labelling) -> Float:
    """The maps that the CRF refines: those of a CAM, and the background map if there is one.

    Args:
        cam: (C, H, W) normalised CAM in [0, 1].
        valid: (H, W) bool, see `uniform_without_data`.
        labelling: Settings.

    Raises:
        ValueError: See `pseudo_label`.
    """
    cam = np.asarray(cam, np.float32)
    if cam.ndim != 3 or not 0 < len(cam) <= IGNORE - (labelling.background is not None):
        raise ValueError(f"a CAM is (C, H, W) with 1 to 255 classes (254 and a background), not {cam.shape}")
    if not (cam.min() >= 0.0 and cam.max() <= 1.0 + 1e-4):
        raise ValueError(f"a normalised CAM lies in 0..1, not {cam.min()}..{cam.max()}")
    return uniform_without_data(with_background(cam, labelling.background), valid)


def label_of(
    maps: Float,
    probabilities: Float,
    variance: NDArray[np.float64],
    valid: NDArray[np.bool_],
    labelling: Labelling,
) -> PseudoLabel:
    """The pseudo mask and the weights of a tile, from the output of the CRF.

    Pixels that are not `decided` have no class and weight 0.

    Args:
        maps: (M, H, W) float32, see `checked_maps`; M is C, or C + 1 with a background map.
        probabilities: (M, H, W) float32, output of the CRF.
        variance: (H, W) float64, see `response_variance`.
        valid: (H, W) bool, false for pixels without data.
        labelling: Settings.
    """
    crf_argmax, cam_argmax = strongest(probabilities), strongest(maps)
    weight = certainty_weight(variance, labelling.normalisation, valid)
    factor = np.where(crf_argmax == cam_argmax, 1.0, labelling.agreement)
    if labelling.background is None:
        cam_mask, crf_mask = cam_argmax, crf_argmax
    elif labelling.background_read_first:
        cam_mask, crf_mask = ignore_first_map(cam_argmax), ignore_first_map(crf_argmax)
    else:
        cam_mask, crf_mask = (ignore_background(argmax, len(maps) - 1) for argmax in (cam_argmax, crf_argmax))
    mask = cam_mask if labelling.mask == "cam" else crf_mask
    known = decided(maps, valid)
    return PseudoLabel(
        mask=np.where(known, mask, np.uint8(IGNORE)),
        weight=np.floor(weight * factor * known).astype(np.uint8),
        cam_argmax=np.where(known, cam_mask, np.uint8(IGNORE)),
        probabilities=probabilities,
    )
