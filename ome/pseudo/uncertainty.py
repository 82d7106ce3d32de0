"""Pseudo masks and how far to trust them: response scaling through the CRF.

Li, Zhang, Xiao, "One Model Is Enough: Toward Multiclass Weakly Supervised Remote Sensing Image Semantic
Segmentation", IEEE TGRS 61, 2023: a pixel whose class changes when the CAM of one class is raised to a power
is uncertain.

Names of dimensions: C classes of the data set, K classes present in the CRF's mask, S response scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ome.pseudo.crf import Crf
from ome.pseudo.simplices import Float

RESPONSE_SCALES: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
LARGEST_VARIANCE: Final = 0.25  # of a boolean
Normalisation = Literal["tile", "absolute"]


@dataclass(frozen=True)
class PseudoLabel:
    """The pseudo labels of a tile.

    Args:
        mask: (H, W) uint8, argmax of the CRF.
        weight: (H, W) uint8, 255 certain, 0 most uncertain.
        cam_argmax: (H, W) uint8, argmax of the CAM.
        probabilities: (C, H, W) float32, the CRF's.
    """

    mask: NDArray[np.uint8]
    weight: NDArray[np.uint8]
    cam_argmax: NDArray[np.uint8]
    probabilities: Float


def pseudo_label(
    crf: Crf,
    cam: NDArray[np.floating],
    scales: Sequence[float] = RESPONSE_SCALES,
    normalisation: Normalisation = "tile",
) -> PseudoLabel:
    """Makes the pseudo mask of a tile and its weights.

    Args:
        crf: The CRF of the tile's image.
        cam: (C, H, W) normalised CAM in [0, 1]; 0 for classes that the tags exclude.
        scales: Powers to which one class at a time is raised, all above 0.
        normalisation: "tile" stretches the uncertainty to 0..1 over the tile, "absolute" divides the
            variance by the largest possible.

    Returns:
        The pseudo labels.

    Raises:
        ValueError: If the CAM is not (C, H, W) in [0, 1], has more than 255 classes, or `scales` is empty or
            has a scale that is not above 0.
    """
    cam = np.asarray(cam, np.float32)
    if cam.ndim != 3 or not 0 < len(cam) <= 255:
        raise ValueError(f"a CAM is (C, H, W) with 1 to 255 classes, not {cam.shape}")
    if not (cam.min() >= 0.0 and cam.max() <= 1.0 + 1e-4):
        raise ValueError(f"a normalised CAM lies in 0..1, not {cam.min()}..{cam.max()}")
    if len(scales) == 0 or min(scales) <= 0:
        raise ValueError(f"response scales are numbers above 0, at least one, not {list(scales)}")
    probabilities = crf.infer(cam)
    mask = probabilities.argmax(0).astype(np.uint8)
    variance = response_variance(crf, cam[np.unique(mask)], scales)
    return PseudoLabel(
        mask=mask,
        weight=certainty_weight(variance, normalisation),
        cam_argmax=cam.argmax(0).astype(np.uint8),
        probabilities=probabilities,
    )


def response_variance(crf: Crf, maps: Float, scales: Sequence[float]) -> NDArray[np.float64]:
    """Measures how often a pixel joins or leaves a class while that class's response is scaled.

    Args:
        crf: The CRF of the tile's image.
        maps: (K, H, W) float32 CAMs of the present classes.
        scales: Powers, (S,).

    Returns:
        (H, W) float64 in [0, 0.25]: the variance over scales of [argmax = c], maximum over classes c.
    """
    variance = np.zeros(maps.shape[1:])
    if len(maps) == 1:
        return variance
    # Scale 1 changes nothing and is the same run for every class.
    powers = [np.ones(len(maps), np.float32)] if 1.0 in scales else []
    runs_of_class: list[list[int]] = []
    for label in range(len(maps)):
        runs: list[int] = []
        for scale in scales:
            runs.append(0 if scale == 1.0 else len(powers))
            if scale != 1.0:
                powers.append(np.where(np.arange(len(maps)) == label, scale, 1.0).astype(np.float32))
        runs_of_class.append(runs)
    winners = crf.winners(maps, np.stack(powers))
    for label, runs in enumerate(runs_of_class):
        share = np.mean(winners[runs] == label, axis=0)
        np.maximum(variance, share * (1.0 - share), out=variance)
    return variance


def certainty_weight(variance: NDArray[np.float64], normalisation: Normalisation) -> NDArray[np.uint8]:
    """Turns variances into weights floor(255 (1 - u)).

    Args:
        variance: (H, W) in [0, 0.25].
        normalisation: "tile": u is the variance stretched to 0..1 over the tile, 0 where it is the same
            everywhere. "absolute": u is the variance / 0.25.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: If the normalisation is neither.
    """
    if normalisation == "absolute":
        uncertainty = variance / LARGEST_VARIANCE
    elif normalisation == "tile":
        least, span = variance.min(), np.ptp(variance)
        uncertainty = (variance - least) / span if span > 0 else np.zeros_like(variance)
    else:
        raise ValueError(f'normalisation is "tile" or "absolute", not "{normalisation}"')
    return np.floor(255.0 * (1.0 - uncertainty)).astype(np.uint8)
