"""The segmenter's losses as pure functions: weighted pixel cross-entropy and optional further terms.

Weights: Li et al. (URN), AAAI 2022. Hardest pixels: Shrivastava et al. (OHEM), CVPR 2016. Dice: Milletari et
al., 3DV 2016. Lovasz-Softmax: Berman et al., CVPR 2018.
Shapes: B images, C classes, H x W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss
from torch import Tensor
from torch.nn import functional as F

from ome.ignore import IGNORE

LossTerm = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A further term: `loss(logits (B, C, H, W), mask (B, H, W) int64, factor (B, H, W) float)` -> a scalar.

The factor is each pixel's weight, 0 where the mask is 255."""

Weighting = Literal["none", "threshold", "continuous"]
URN_THRESHOLD = 0.05


class PixelWeights(NamedTuple):
    """Weights of the pixels, both (B, H, W) float32 and 0 where the target is ignored.

    The loss is sum(factor * entropy) / sum(normaliser). With several processes the divisor is the sum over
    all of them; otherwise a pixel would count more if the other pixels of its process are uncertain.

    Attributes:
        factor: Factor on the pixel's cross-entropy.
        normaliser: Contribution of the pixel to the divisor.
    """

    factor: Tensor
    normaliser: Tensor


def pixel_weights(weight: Tensor, mode: Weighting) -> Tensor:
    """Turns stored weights into loss weights.

    Args:
        weight: Stored weights (B, H, W), 0..255, where 255 is certain.
        mode: "none": 1 everywhere; "threshold" (URN): .05 where weight / 255 <= .05, else 1; "continuous":
            weight / 255.

    Returns:
        Weights (B, H, W), float32 in [0, 1].

    Raises:
        ValueError: The mode is none of the three.
    """
    scaled = weight.float() / 255
    if mode == "none":
        return torch.ones_like(scaled)
    if mode == "threshold":
        return torch.where(scaled <= URN_THRESHOLD, URN_THRESHOLD, 1.0)
    if mode == "continuous":
        return scaled
    raise ValueError(f"weight mode {mode!r} is none of none, threshold and continuous")


def weigh_pixels(
    target: Tensor, weight: Tensor, mode: Weighting, class_weights: Tensor | None = None
) -> PixelWeights:
    """Combines the certainty of a pixel with the weight of its class.

    Args:
        target: Class indices (B, H, W), integers; 255 is ignored.
        weight: Stored weights (B, H, W), 0..255.
        mode: See `pixel_weights`. URN's "threshold" uses the mean over all pixels, the others the weighted
            mean.
        class_weights: (C,) float factors on factor and normaliser by the pixel's class, as in torch's
            weighted mean; None for 1.
    """
    valid = target != IGNORE
    factor = torch.where(valid, pixel_weights(weight, mode), 0.0)
    normaliser = valid.float() if mode == "threshold" else factor
    if class_weights is None:
        return PixelWeights(factor, normaliser)
    of_class = class_weights[torch.where(valid, target, 0).long()]
    return PixelWeights(factor * of_class, normaliser * of_class)


def pixel_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each pixel.

    Args:
        logits: Class scores (B, C, H, W), any float type.
        target: Class indices (B, H, W), integers; 255 takes no part.
        label_smoothing: Fraction of the target that is spread evenly over all C classes, in [0, 1).

    Returns:
        (B, H, W) float32, 0 where the target is ignored.
    """
    return F.cross_entropy(
        logits.float(), target.long(), ignore_index=IGNORE, reduction="none", label_smoothing=label_smoothing
    )


def hardest_pixels(loss: Tensor, eligible: Tensor, fraction: float) -> Tensor:
    """Online hard example mining: selects the pixels with the largest losses.

    The selection is per process, over its part of the batch. Pass the loss times the pixel's weight: an
    uncertain pseudo label has a large loss too, and should not displace certain pixels.

    Args:
        loss: Loss of each pixel (B, H, W).
        eligible: (B, H, W) bool, the candidates.
        fraction: Fraction of the candidates to keep, in (0, 1]. Their number is rounded up; ties with the
            last one are kept as well.

    Returns:
        (B, H, W) bool, a subset of `eligible`.
    """
    ranked = loss.detach().masked_fill(~eligible, -torch.inf).flatten().sort(descending=True).values
    # Not `ranked[count - 1]`, which synchronises: the number of pixels stays on the device.
    count = (fraction * eligible.sum().double()).ceil().long().clamp_min(1)
    return (loss >= ranked.gather(0, count[None] - 1)) & eligible


def overlap_loss(logits: Tensor, target: Tensor, factor: Tensor, *, dice: float, lovasz: float) -> Tensor:
    """Dice and Lovasz-Softmax loss of a batch, over the pixels whose weight is positive.

    Both are ratios of pixel sets, for which a pixel is either in or out: 255 and pixels of weight 0 are out,
    all others count alike. Both are taken over the whole batch of one process. Dice is
    1 - 2 |P T| / (|P| + |T|) averaged over all C classes, where a class without a target pixel counts as 0;
    Lovasz is averaged over the classes with target pixels.

    Args:
        logits: Class scores (B, C, H, W).
        target: Class indices (B, H, W), integers.
        factor: Weights (B, H, W), see `PixelWeights`.
        dice: Weight of the Dice loss; 0 disables it.
        lovasz: Weight of the Lovasz loss; 0 disables it.

    Returns:
        The weighted sum, a scalar; 0 when all pixels are ignored.
    """
    chosen = torch.where(factor > 0, target.long(), IGNORE)
    total = logits.new_zeros((), dtype=torch.float32)
    if dice:
        total = total + dice * DiceLoss(MULTICLASS_MODE, ignore_index=IGNORE)(logits.float(), chosen)
    if lovasz:
        probabilities, chosen = logits.float().softmax(dim=1).transpose(0, 1).flatten(1), chosen.flatten()
        if chosen.device.type == "cpu":  # fewer to sort; on a GPU their number would need a synchronisation
            probabilities, chosen = probabilities[:, chosen != IGNORE], chosen[chosen != IGNORE]
        total = total + lovasz * lovasz_softmax(probabilities, chosen)
    return total


def lovasz_softmax(probabilities: Tensor, target: Tensor) -> Tensor:
    """Lovasz-Softmax loss of P pixels, the mean over the classes that have target pixels.

    All classes are computed at once, and ignored pixels have an error of 0, which adds nothing: libraries
    select pixels and classes on the host, which synchronises with the device for each class.

    Args:
        probabilities: (C, P) float32, their sum over C is 1.
        target: Class indices (P,), integers; 255 takes no part.

    Returns:
        A scalar, 0 without any target pixel.
    """
    if not target.numel():
        return probabilities.sum()
    classes, places = (torch.arange(size, device=target.device) for size in probabilities.shape)
    truth = (target == classes[:, None]).to(probabilities.dtype)
    errors = (truth - probabilities).abs() * (target != IGNORE)
    errors, order = errors.sort(dim=1, descending=True)
    true_so_far = truth.gather(1, order).cumsum(dim=1)
    pixels = true_so_far[:, -1:]
    jaccard = 1 - (pixels - true_so_far) / (pixels + (places + 1 - true_so_far))
    losses = (errors * jaccard.diff(dim=1, prepend=torch.zeros_like(pixels))).sum(dim=1)
    present = (pixels > 0).to(losses.dtype).flatten()
    return (losses * present).sum() / present.sum().clamp_min(1)


def balanced_class_weights(pixels: Sequence[float], power: float = 1.0) -> list[float]:
    """Weights in proportion to n_c^-power, so that rare classes count more; their mean over the pixels is 1.

    Args:
        pixels: Pixels n_c of each of the C classes in the training masks, or the sum of their weights.
        power: 1: every class counts the same in sum, N / (K n_c) with N the sum over the K classes that have
            pixels; 0.5: in sum, a class counts as the square root of its pixels; 0: all weights are 1.

    Returns:
        C weights; 1 for a class without any pixel.
    """
    total = sum(pixels)
    in_sum = sum(count ** (1 - power) for count in pixels if count)
    return [total / (in_sum * count**power) if count else 1.0 for count in pixels]
