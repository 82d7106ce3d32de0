"""Pseudo masks and how far to trust them: response scaling through the CRF.

Li, Zhang, Xiao, "One Model Is Enough: Toward Multiclass Weakly Supervised Remote Sensing Image Semantic
Segmentation", IEEE TGRS 61, 2023: a pixel whose class changes when the CAM of one class is raised to a power
is uncertain.

Names of dimensions: C classes of the data set.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ome.crf.inputs import Crf
from ome.crf.simplices import Float
from ome.errors import UserError
from ome.ignore import IGNORE
from ome.pseudo.response import NORMALISATIONS, Normalisation, certainty_weight, response_variance

RESPONSE_SCALES: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
MaskSource = Literal["crf", "cam"]


@dataclass(frozen=True)
class Labelling:
    """How the class maps of a tile become pseudo labels.

    Args:
        response_scales: Powers to which one class at a time is raised, at least one, all above 0.
        normalisation: "tile" stretches the uncertainty to 0..1 over the tile, "absolute" divides the variance
            by the largest possible.
        mask: Which argmax becomes the pseudo mask: that of the CRF, or that of the CAM.
        background: Power of an additional background map, see `with_background`; None: no background.
        agreement: Factor in [0, 1] on the weight of pixels where the two argmaxes differ; 1 changes nothing.
        background_read_first: The published code's mistake with a background map, see `read_first`.

    Raises:
        UserError: If a value is out of its range.
    """

    response_scales: tuple[float, ...] = RESPONSE_SCALES
    normalisation: Normalisation = "tile"
    mask: MaskSource = "crf"
    background: float | None = None
    agreement: float = 1.0
    background_read_first: bool = False

    def __post_init__(self) -> None:
        for name, known in (("normalisation", NORMALISATIONS), ("mask", get_args(MaskSource))):
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
    """The pseudo labels of a tile.

    Args:
        mask: (H, W) uint8, the pseudo mask; 255 where a background map wins.
        weight: (H, W) uint8, 255 certain, 0 most uncertain.
        cam_argmax: (H, W) uint8, argmax of the CAM; 255 where a background map wins.
        probabilities: (C, H, W) float32, the CRF's; (C + 1, H, W) where there is a background map.
    """

    mask: NDArray[np.uint8]
    weight: NDArray[np.uint8]
    cam_argmax: NDArray[np.uint8]
    probabilities: Float


def pseudo_label(crf: Crf, cam: NDArray[np.floating], labelling: Labelling | None = None) -> PseudoLabel:
    """Makes the pseudo mask of a tile and its weights.

    A background map is one more class to the CRF and to the response scaling.

    Args:
        crf: The CRF of the tile's image.
        cam: (C, H, W) normalised CAM in [0, 1]; 0 for classes that the tags exclude.
        labelling: Settings; by default those of the paper.

    Returns:
        The pseudo labels.

    Raises:
        ValueError: If the CAM is not (C, H, W) in [0, 1] or has, with a background map, more than 255 maps.
    """
    labelling = labelling or Labelling()
    maps = checked_maps(cam, labelling)
    probabilities = crf.infer(maps)
    present = np.unique(strongest(probabilities))
    variance = response_variance(crf, maps[present], labelling.response_scales)
    return label_of(maps, probabilities, variance, labelling)


def checked_maps(cam: NDArray[np.floating], labelling: Labelling) -> Float:
    """The maps that the CRF refines: those of a CAM, and the background map where there is one.

    Args:
        cam: (C, H, W) normalised CAM in [0, 1].
        labelling: Settings.

    Raises:
        ValueError: See `pseudo_label`.
    """
    cam = np.asarray(cam, np.float32)
    if cam.ndim != 3 or not 0 < len(cam) <= IGNORE - (labelling.background is not None):
        raise ValueError(f"a CAM is (C, H, W) with 1 to 255 classes (254 and a background), not {cam.shape}")
    if not (cam.min() >= 0.0 and cam.max() <= 1.0 + 1e-4):
        raise ValueError(f"a normalised CAM lies in 0..1, not {cam.min()}..{cam.max()}")
    return with_background(cam, labelling.background)


def label_of(
    maps: Float, probabilities: Float, variance: NDArray[np.float64], labelling: Labelling
) -> PseudoLabel:
    """The pseudo labels of a tile from what the CRF gave for it.

    Args:
        maps: (M, H, W) float32, see `checked_maps`; M is C, or C + 1 with a background map.
        probabilities: (M, H, W) float32, the CRF's.
        variance: (H, W) float64, see `response_variance`.
        labelling: Settings.
    """
    crf_argmax, cam_argmax = strongest(probabilities), strongest(maps)
    weight = certainty_weight(variance, labelling.normalisation)
    factor = np.where(crf_argmax == cam_argmax, 1.0, labelling.agreement)
    if labelling.background is None:
        cam_mask, crf_mask = cam_argmax, crf_argmax
    elif labelling.background_read_first:
        cam_mask, crf_mask = read_first(cam_argmax), read_first(crf_argmax)
    else:
        cam_mask, crf_mask = (ignore_background(argmax, len(maps) - 1) for argmax in (cam_argmax, crf_argmax))
    return PseudoLabel(
        mask=cam_mask if labelling.mask == "cam" else crf_mask,
        weight=np.floor(weight * factor).astype(np.uint8),
        cam_argmax=cam_mask,
        probabilities=probabilities,
    )


def with_background(cam: Float, power: float | None) -> Float:
    """Appends a background map to a CAM.

    Args:
        cam: (C, H, W) float32 in [0, 1].
        power: Alpha of AffinityNet (Ahn and Kwak, CVPR 2018, equation 2): the larger, the less background.

    Returns:
        (C + 1, H, W) float32, last of all (1 - maximum of the CAM over classes) ** alpha; the CAM itself
        where `power` is None.
    """
    if power is None:
        return cam
    # A normalised CAM may exceed 1 by rounding.
    rest = np.maximum(1.0 - cam.max(axis=0, keepdims=True), 0.0) ** np.float32(power)
    return np.concatenate([cam, rest])


def strongest(maps: Float) -> NDArray[np.uint8]:
    """Tells which class is strongest at each pixel.

    Maps that are 0 everywhere (classes that the tags exclude) win nothing, not even where all others are 0.

    Args:
        maps: (C, H, W), C up to 255, not negative.

    Returns:
        (H, W) uint8 index of the largest value, the lower one where two are equal; 0 where all maps are 0.
    """
    responding = np.flatnonzero(maps.any(axis=(1, 2))).astype(np.uint8)
    if len(responding) == 0:
        return np.zeros(maps.shape[1:], dtype=np.uint8)
    winners: NDArray[np.uint8] = responding[maps[responding].argmax(0)]
    return winners


def ignore_background(argmax: NDArray[np.uint8], num_classes: int) -> NDArray[np.uint8]:
    """Replaces the index of the background map, C, by 255: no class of the data set."""
    return np.where(argmax < num_classes, argmax, np.uint8(IGNORE))


def read_first(argmax: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Takes the first map for the background though it is the last, as the published code does.

    Args:
        argmax: (H, W) indices of C + 1 maps, the background's last.

    Returns:
        (H, W) uint8: 255 where class 0 wins, any other class the one before it, the background as the last.
    """
    return np.where(argmax == 0, np.uint8(IGNORE), argmax - np.uint8(1))
