"""The losses as pure functions: SEAM's for two views, and pixel cross-entropy with weights.

SEAM: Wang et al., CVPR 2020, section 3.4, without a background class. Weights: Li et al. (URN), AAAI 2022.
Shapes: B images, C classes, H x W and h x w pixels.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ome.ignore import IGNORE

Weighting = Literal["none", "threshold", "continuous"]
EPSILON = 1e-5
ECR_SHARE = 0.2
URN_THRESHOLD = 0.05


class SeamLosses(NamedTuple):
    """The terms of SEAM's loss, scalars.

    `multilabel` and `min_pool` are means over the two views, `classification` is their sum, and `total` is
    classification + er_weight * er + ecr_weight * ecr.
    """

    multilabel: Tensor
    min_pool: Tensor
    classification: Tensor
    er: Tensor
    ecr: Tensor
    total: Tensor


def normalise_maps(maps: Tensor) -> Tensor:
    """Clips maps at 0 and scales each to [0, 1] by its own minimum and maximum (with 1e-5 on either side).

    Args:
        maps: Class maps (B, C, H, W), any real values.

    Returns:
        Maps (B, C, H, W) in [0, 1].
    """
    positive = F.relu(maps)
    low = positive.amin(dim=(2, 3), keepdim=True)
    high = positive.amax(dim=(2, 3), keepdim=True)
    return F.relu(positive - low - EPSILON) / (high - low + EPSILON)


def strongest_class(maps: Tensor) -> Tensor:
    """Keeps the maximum over the classes at each pixel and sets the rest of (B, C, H, W) to 0."""
    return torch.where(maps < maps.amax(dim=1, keepdim=True), 0.0, maps)


def multilabel_loss(cam: Tensor, tags: Tensor) -> Tensor:
    """Multilabel soft margin loss of the globally averaged CAM.

    Args:
        cam: Raw maps (B, C, H, W).
        tags: Image-level tags (B, C), 0 or 1.

    Returns:
        The mean over images and classes, a scalar.
    """
    return F.multilabel_soft_margin_loss(cam.mean(dim=(2, 3)), tags.to(cam.dtype))


def min_pool_loss(refined: Tensor, tags: Tensor) -> Tensor:
    """Pushes down the weakest quarter of the pixels, so that refined maps do not cover everything.

    Args:
        refined: Refined maps (B, C, H, W).
        tags: Image-level tags (B, C), 0 or 1.

    Returns:
        The mean over images of the ReLU of the H * W // 4 smallest per-pixel maxima over classes, a scalar.
    """
    strongest = (refined * _as_maps(tags, refined)).amax(dim=1).flatten(1)
    smallest = strongest.topk(strongest.shape[1] // 4, dim=1, largest=False).values
    return F.relu(smallest).mean()


def equivariance_loss(cam1: Tensor, cam2: Tensor) -> Tensor:
    """SEAM's ER: the mean absolute difference of two normalised maps (B, C, h, w)."""
    return (cam1 - cam2).abs().mean()


def cross_refinement_loss(refined: Tensor, cam: Tensor) -> Tensor:
    """One half of SEAM's ECR: refined maps of one view against the CAM of the other.

    Args:
        refined: Normalised refined maps (B, C, h, w).
        cam: Normalised CAM (B, C, h, w) of the other view; its strongest class is the target, detached.

    Returns:
        The mean of the largest fifth of the absolute differences of each image, a scalar.
    """
    difference = (strongest_class(cam.detach()) - refined).abs().flatten(1)
    hardest = int(ECR_SHARE * difference.shape[1])
    return difference.topk(hardest, dim=1).values.mean()


def seam_loss(
    view1: tuple[Tensor, Tensor],
    view2: tuple[Tensor, Tensor],
    tags: Tensor,
    *,
    er_weight: float = 1.0,
    ecr_weight: float = 1.0,
) -> SeamLosses:
    """SEAM's whole loss for two views of the same images.

    Args:
        view1: Raw and refined CAM (B, C, H, W).
        view2: Raw and refined CAM (B, C, h, w) of the same images at half size.
        tags: Image-level tags (B, C), 0 or 1.
        er_weight: Weight of the equivariance term; 0 switches it off.
        ecr_weight: Weight of the cross refinement term; 0 switches it off.

    Returns:
        Every term and the total. A term that is switched off is still reported, without gradient.
    """
    (cam1, refined1), (cam2, refined2) = view1, view2
    multilabel = (multilabel_loss(cam1, tags) + multilabel_loss(cam2, tags)) / 2
    min_pool = (min_pool_loss(refined1, tags) + min_pool_loss(refined2, tags)) / 2
    present = _as_maps(tags, cam1)
    size = cam2.shape[2:]
    first, first_refined = (_resize(normalise_maps(maps), size) * present for maps in (cam1, refined1))
    second, second_refined = (normalise_maps(maps) * present for maps in (cam2, refined2))
    with torch.set_grad_enabled(torch.is_grad_enabled() and er_weight != 0):
        er = equivariance_loss(first, second)
    with torch.set_grad_enabled(torch.is_grad_enabled() and ecr_weight != 0):
        ecr = cross_refinement_loss(first_refined, second) + cross_refinement_loss(second_refined, first)
    classification = multilabel + min_pool
    total = classification + er_weight * er + ecr_weight * ecr
    return SeamLosses(multilabel, min_pool, classification, er, ecr, total)


def _as_maps(tags: Tensor, like: Tensor) -> Tensor:
    return tags.to(like.dtype)[:, :, None, None]


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


class PixelLoss(NamedTuple):
    """Weighted cross-entropy over a batch; scalars but for the first.

    Attributes:
        losses: Weight times cross-entropy of each pixel, (B, H, W); 0 for ignored pixels.
        mean: `loss_sum` over the divisor.
        loss_sum: Sum over pixels of weight times cross-entropy.
        weight_sum: Sum of the weights of pixels that are not ignored.
        pixels: Number of pixels that are not ignored.
    """

    losses: Tensor
    mean: Tensor
    loss_sum: Tensor
    weight_sum: Tensor
    pixels: Tensor


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


def pixel_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    total_weight: Tensor | float | None = None,
    ignore_index: int = IGNORE,
) -> PixelLoss:
    """Cross-entropy of each pixel times its weight, divided by the sum of weights.

    With several processes the divisor has to be the sum over all of them, or a pixel counts more where its
    neighbours on the same process are uncertain. Where gradients are averaged over P processes, give
    `total_weight` = (sum of `weight_sum` over all processes) / P. For URN's "threshold" mode, which takes the
    mean over all pixels, use `pixels` in the same way.

    Args:
        logits: Class scores (B, C, H, W).
        target: Class indices (B, H, W), integers.
        weight: Loss weights (B, H, W), float in [0, 1].
        total_weight: The divisor; by default the sum of this batch's weights.
        ignore_index: Target value of the pixels that take no part.

    Returns:
        The mean and what it is made of. The mean is 0 when all weights are.
    """
    valid = target != ignore_index
    entropy = F.cross_entropy(logits.float(), target.long(), ignore_index=ignore_index, reduction="none")
    weight = torch.where(valid, weight.to(entropy.dtype), 0.0)
    losses = entropy * weight
    loss_sum = losses.sum()
    weight_sum = weight.sum()
    divisor = weight_sum if total_weight is None else torch.as_tensor(total_weight).to(loss_sum)
    mean = loss_sum / divisor.clamp_min(torch.finfo(loss_sum.dtype).tiny)
    return PixelLoss(losses, mean, loss_sum, weight_sum, valid.sum())
