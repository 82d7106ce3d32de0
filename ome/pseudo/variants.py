"""All variants of a tile's pseudo mask, to be compared with a reference."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.crf.inputs import Crf
from ome.crf.simplices import Float
from ome.ignore import IGNORE
from ome.pseudo.response import Normalisation, certainty_weight, response_variance
from ome.pseudo.uncertainty import ignore_background, strongest, with_background

Mask = NDArray[np.uint8]
WEIGHTS: Final[dict[str, Normalisation]] = {"weight": "tile", "absolute weight": "absolute"}
"""What the weights of each normalisation are called."""
AGREEMENT: Final = "both argmaxes agree"
CRITERIA: Final = (*WEIGHTS, AGREEMENT)
"""What `Variants.levels` has levels of."""


class Variants(NamedTuple):
    """What can be made of the class maps of one tile.

    Attributes:
        masks: (H, W) uint8 class indices by name of the variant; 255 where it decides nothing.
        crf: The one of them that is the CRF's, (H, W) uint8.
        levels: By criterion, (H, W) uint8 levels that may tell where the CRF is right: the weights of both
            normalisations, and 1 where the argmax of the maps is that of the CRF, else 0.
    """

    masks: dict[str, Mask]
    crf: Mask
    levels: dict[str, Mask]


def mask_variants(
    crf: Crf,
    maps: Float,
    title: str,
    scales: Sequence[float],
    backgrounds: Sequence[float] = (),
    weights: Sequence[int] = (),
) -> Variants:
    """Makes the variants of a tile.

    Args:
        crf: The CRF of the tile's image.
        maps: (C, H, W) float32 in [0, 1]; 0 for classes that the tags exclude.
        title: What the maps are called, the first word of every name.
        scales: Response scales, see `response_variance`.
        backgrounds: Powers of background maps, see `with_background`; each makes two variants.
        weights: Least weights in 0..255; each makes a variant for each normalisation.
    """
    argmax, crf_argmax = strongest(maps), strongest(crf.infer(maps))
    stacks = [with_background(maps, power) for power in backgrounds]
    masks = [argmax, *(ignore_background(strongest(stack), len(maps)) for stack in stacks), crf_argmax]
    masks += [ignore_background(strongest(crf.infer(stack)), len(maps)) for stack in stacks]
    variance = response_variance(crf, maps[np.unique(crf_argmax)], scales)
    levels = {name: certainty_weight(variance, kind) for name, kind in WEIGHTS.items()}
    masks += [_where(level >= least, crf_argmax) for level in levels.values() for least in weights]
    agree = argmax == crf_argmax
    masks.append(_where(agree, crf_argmax))
    named = dict(zip(variant_names(title, backgrounds, weights), masks, strict=True))
    return Variants(named, crf_argmax, {**levels, AGREEMENT: agree.astype(np.uint8)})


def variant_names(title: str, backgrounds: Sequence[float] = (), weights: Sequence[int] = ()) -> list[str]:
    """The names of the masks that `mask_variants` makes with these arguments, in its order."""
    over = ["", *(f", background alpha {power:g}" for power in backgrounds)]
    certain = [*(f"{name} >= {least}" for name in WEIGHTS for least in weights), AGREEMENT]
    return [
        *(f"{title} argmax{background}" for background in over),
        *(f"{title} + CRF{background}" for background in over),
        *(f"{title} + CRF, {kept}" for kept in certain),
    ]


def _where(kept: NDArray[np.bool_], mask: Mask) -> Mask:
    return np.where(kept, mask, np.uint8(IGNORE))
