"""SEAM's loss for two views as pure functions.

Wang et al., CVPR 2020, section 3.4, without a background class.
Shapes: B images, C classes, H x W and h x w pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ome.networks.features import resize_maps
from ome.networks.pooling import Pooling, pool_maps

EPSILON = 1e-5
ECR_FRACTION = 0.2


class SeamLosses(NamedTuple):
    """The terms of SEAM's loss, scalars; a term that is switched off is 0.

    `multilabel` and `min_pool` are means over the views, `classification` is multilabel + min_pool_weight *
    min_pool, and `total` is classification + er_weight * er + ecr_weight * ecr.
    """

    multilabel: Tensor
    min_pool: Tensor
    classification: Tensor
    er: Tensor
    ecr: Tensor
    total: Tensor


def normalise_maps(maps: Tensor) -> Tensor:
    """Clips maps (B, C, H, W) at 0 and scales each to [0, 1] by its own minimum and maximum.

    There is 1e-5 on either side of the quotient.
    """
    # Clipping after the reduction is equivalent, because the ReLU below clips the maps, and faster.
    low = F.relu(maps.amin(dim=(2, 3), keepdim=True))
    high = F.relu(maps.amax(dim=(2, 3), keepdim=True))
    return F.relu(maps - (low + EPSILON)) / (high - low + EPSILON)


def multilabel_loss(pooled: Tensor, tags: Tensor, learnt: Tensor | None = None) -> Tensor:
    """Multilabel soft margin loss of the pooled CAM.

    Args:
        pooled: Scores of the raw maps (B, C), see `pool_maps`.
        tags: Image-level tags (B, C), 0 or 1.
        learnt: (B, C), 1 for classes that take part, 0 for others, whose loss is 0; None for all.

    Returns:
        The mean over images and classes, a scalar.
    """
    return F.multilabel_soft_margin_loss(pooled, tags.to(pooled.dtype), learnt)


def min_pool_loss(refined: Tensor, tags: Tensor) -> Tensor:
    """Penalises the weakest quarter of the pixels, so that refined maps do not cover everything.

    Args:
        refined: Refined maps (B, C, H, W).
        tags: Image-level tags (B, C), 0 or 1.

    Returns:
        The mean over images of the ReLU of the H * W // 4, but at least 1, smallest maxima over classes.
    """
    strongest = (refined * _as_maps(tags, refined)).amax(dim=1).flatten(1)
    smallest = strongest.topk(max(1, strongest.shape[1] // 4), dim=1, largest=False).values
    return F.relu(smallest).mean()


def cross_refinement_loss(refined: Tensor, cam: Tensor) -> Tensor:
    """One half of SEAM's ECR: refined maps of one view against the CAM of the other.

    Args:
        refined: Normalised refined maps (B, C, h, w).
        cam: Normalised CAM (B, C, h, w) of the other view; its strongest class is the target, detached.

    Returns:
        The mean of the largest fifth of the absolute differences of each image, a scalar.
    """
    target = cam.detach()
    target = torch.where(target < target.amax(dim=1, keepdim=True), 0.0, target)
    difference = (target - refined).abs().flatten(1)
    hardest = max(1, int(ECR_FRACTION * difference.shape[1]))
    return difference.topk(hardest, dim=1).values.mean()


def seam_loss(
    view1: tuple[Tensor, Tensor],
    view2: tuple[Tensor, Tensor] | None,
    tags: Tensor,
    learnt: Tensor | None = None,
    *,
    er_weight: float = 1.0,
    ecr_weight: float = 1.0,
    min_pool_weight: float = 1.0,
    pooling: Pooling = "mean",
) -> SeamLosses:
    """SEAM's loss for two views of the same images, or its terms for a single view.

    A term whose weight is 0 is not computed; with all weights 0 it is plain CAM's multilabel loss.

    Args:
        view1: Raw and refined CAM (B, C, H, W).
        view2: Raw and refined CAM (B, C, h, w) of the same images at half size; None where there is one view.
        tags: Image-level tags (B, C), 0 or 1.
        learnt: Which of them the multilabel loss learns from, see `multilabel_loss`.
        er_weight: Weight of the equivariance term.
        ecr_weight: Weight of the cross refinement term.
        min_pool_weight: Weight of the min-pool term.
        pooling: How raw maps become scores, see `pool_maps`.

    Returns:
        Every term and the total.

    Raises:
        ValueError: There is one view, and a weight for a term that compares two; maps and tags do not fit, or
            are not tensors.
    """
    views = (view1,) if view2 is None else (view1, view2)
    labels = [tags] if learnt is None else [tags, learnt]
    for view in views:
        _check_view(view, labels)
    pooled = [pool_maps(cam, pooling) for cam, _ in views]
    weights = None if learnt is None else _joined([learnt] * len(views))
    multilabel = multilabel_loss(_joined(pooled), _joined([tags] * len(views)), weights)
    min_pool = er = ecr = torch.zeros_like(multilabel)
    if min_pool_weight:
        min_pool = torch.stack([min_pool_loss(refined, tags) for _, refined in views]).mean()
    if er_weight or ecr_weight:
        if view2 is None:
            raise ValueError("the terms ER and ECR compare two views, and there is one")
        # On a GPU these small maps cost little but each operator needs a launch, so they are concatenated.
        maps = [torch.cat(view, dim=1) if ecr_weight else view[0] for view in (view1, view2)]
        first, second = (_present(of_view, tags, view2[0].shape[2:]) for of_view in maps)
        if er_weight:
            er = (first[:, : tags.shape[1]] - second[:, : tags.shape[1]]).abs().mean()
        if ecr_weight:
            cam, refined = torch.cat([first, second]).chunk(2, dim=1)
            crossed = torch.cat(cam.detach().chunk(2)[::-1])
            ecr = 2 * cross_refinement_loss(refined, crossed)
    classification = torch.add(multilabel, min_pool, alpha=min_pool_weight)
    total = torch.add(torch.add(classification, er, alpha=er_weight), ecr, alpha=ecr_weight)
    return SeamLosses(multilabel, min_pool, classification, er, ecr, total)


def _check_view(view: tuple[Tensor, Tensor], labels: list[Tensor]) -> None:
    """Checks a view against the tags, and against the classes that are learnt if there are some."""
    if not all(isinstance(one, Tensor) for one in (*view, *labels)):
        raise ValueError("maps and tags are tensors: give e.g. torch.as_tensor(tags)")
    maps, tags = [tuple(one.shape) for one in view], [tuple(one.shape) for one in labels]
    if len(maps) != 2 or maps[0] != maps[1] or len(maps[0]) != 4 or {*tags} != {maps[0][:2]}:
        raise ValueError(
            "a view is the raw and the refined CAM, both (B, C, H, W) with tags (and learnt) (B, C), not "
            f"{maps} with {tags}: resize maps with resize_maps, leave a background out, and give the CAM "
            "twice where nothing refines it"
        )


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _present(maps: Tensor, tags: Tensor, size: torch.Size) -> Tensor:
    """Normalises and resizes the maps of the tagged classes; other classes become 0."""
    repeated = tags.repeat(1, maps.shape[1] // tags.shape[1])
    return resize_maps(normalise_maps(maps), size) * _as_maps(repeated, maps)


def _as_maps(tags: Tensor, like: Tensor) -> Tensor:
    return tags.to(like.dtype)[:, :, None, None]
