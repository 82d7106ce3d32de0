"""Variants of a tile's pseudo mask, to compare them with a reference mask."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.crf.inputs import Crf
from ome.crf.simplices import Float
from ome.ignore import IGNORE
from ome.pseudo.argmax import decided, ignore_background, strongest, uniform_without_data, with_background
from ome.pseudo.response import Normalisation, certainty_weight, response_variance

Mask = NDArray[np.uint8]
WEIGHTS: Final[dict[str, Normalisation]] = {"weight": "tile", "absolute weight": "absolute"}
"""Normalisations by the name of their weights."""
AGREEMENT: Final = "both argmaxes agree"
CRITERIA: Final = (*WEIGHTS, AGREEMENT)
"""The keys of `Variants.levels`."""


class Variants(NamedTuple):
    """Pseudo masks from the class maps of one tile.

    Attributes:
        masks: (H, W) uint8 class indices by name of the variant; 255 for pixels without a class or data.
        crf: The mask of the CRF, (H, W) uint8; 255 for pixels without data.
        levels: (H, W) uint8 levels by criterion, which may predict whether the mask of the CRF is right: the
            weights of both normalisations, and whether the argmaxes of the maps and of the CRF agree, 0 or 1.
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
    valid: NDArray[np.bool_] | None = None,
) -> Variants:
    """Computes the variants of a tile.

    Args:
        crf: The CRF of the tile's image.
        maps: (C, H, W) float32 in [0, 1]; 0 for classes that the tags exclude.
        title: Name of the maps, with which the name of every variant begins.
        scales: Response scales, see `response_variance`.
        backgrounds: Powers of background maps, see `with_background`, with two variants each.
        weights: Least weights in 0..255, with a variant each for both normalisations.
        valid: (H, W) bool, false for pixels without data; None if there are none.
    """
    valid = np.ones(maps.shape[1:], bool) if valid is None else valid
    powers = (None, *backgrounds)
    known = decided(maps, valid)
    maps, *stacks = (uniform_without_data(with_background(maps, power), valid) for power in powers)
    argmax, crf_argmax = (_where(valid, strongest(each)) for each in (maps, crf.infer(maps)))
    masks = [argmax, *(ignore_background(strongest(stack), len(maps)) for stack in stacks), crf_argmax]
    masks += [ignore_background(strongest(crf.infer(stack)), len(maps)) for stack in stacks]
    variance = response_variance(crf, maps[np.unique(crf_argmax[valid])], scales)
    levels = {name: certainty_weight(variance, kind, valid) * known for name, kind in WEIGHTS.items()}
    masks += [_where(level >= least, crf_argmax) for level in levels.values() for least in weights]
    agree = argmax == crf_argmax
    masks.append(_where(agree, crf_argmax))
    masks = [_where(known, mask) for mask in masks]
    named = dict(zip(variant_names(title, backgrounds, weights), masks, strict=True))
    return Variants(named, crf_argmax, {**levels, AGREEMENT: agree.astype(np.uint8)})


def variant_names(title: str, backgrounds: Sequence[float] = (), weights: Sequence[int] = ()) -> list[str]:
    """The names of the variants that `mask_variants` returns for the same arguments, in the same order."""
    suffixes = ["", *(f", background alpha {power:g}" for power in backgrounds)]
    conditions = [*(f"{name} >= {least}" for name in WEIGHTS for least in weights), AGREEMENT]
    return [
        *(f"{title} argmax{suffix}" for suffix in suffixes),
        *(f"{title} + CRF{suffix}" for suffix in suffixes),
        *(f"{title} + CRF, {condition}" for condition in conditions),
    ]


def _where(kept: NDArray[np.bool_], mask: Mask) -> Mask:
    return np.where(kept, mask, np.uint8(IGNORE))
