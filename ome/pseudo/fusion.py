"""Class activation maps of several scales and flips, fused into one normalised map per class.

Names of dimensions: B tiles, C classes, S maps to fuse.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5

FLOOR: Final = 0.1
"""Added to stretched maps that compete, so that the softmax decides where no tagged class responds."""


def normalise_cam(total: Tensor, tags: Tensor, valid: Tensor | None = None) -> Tensor:
    """Keeps the tagged classes of a summed CAM and stretches each class to 0..1.

    Args:
        total: Sum of S maps of a tile, (C, H, W) at the tile's size, flips undone; (B, C, H, W) of B tiles at
            once.
        tags: (C,) or (B, C), 1 for classes in the tile, 0 for others.
        valid: (H, W) or (B, H, W) bool, false for pixels without data, which have no part in minimum and
            maximum; None if there are none.

    Returns:
        (C, H, W) or (B, C, H, W) in [0, 1): (x - min) / (max - min + 1e-5) of the sum x clipped at 0;
        0 for classes that are not tagged, and for pixels without data.

    Raises:
        ValueError: The tags do not fit the maps.
    """
    if total.shape[:-2] != tags.shape:
        raise ValueError(f"tags of shape {tuple(tags.shape)} do not fit maps of shape {tuple(total.shape)}")
    kept = (total * tags.to(total)[..., None, None]).clamp_min(0.0)
    empty = _without_data(valid, total)
    # `where` keeps the memory layout of maps in channels_last, which `masked_fill` does not.
    least = torch.where(empty, torch.inf, kept).amin((-2, -1), keepdim=True)
    largest = torch.where(empty, 0.0, kept).amax((-2, -1), keepdim=True)
    return torch.where(empty, 0.0, (kept - least) / (largest - least + EPSILON))


def _without_data(valid: Tensor | None, maps: Tensor) -> Tensor:
    """Which pixels have no data, in a shape that fits maps (..., C, H, W)."""
    if valid is None:
        return torch.zeros((), dtype=torch.bool, device=maps.device)
    return ~valid[..., None, :, :]


def competing_cams(total: Tensor, tags: Tensor, valid: Tensor | None = None) -> Tensor:
    """Multiplies each class of `normalise_cam`, and `FLOOR`, by its softmax among the pixel's tagged classes.

    Stretching makes a faint class as strong as a sure one: each reaches 1 somewhere in the tile. The softmax
    compares the classes with each other. Its temperature is the tile's largest response, so that it depends
    neither on the scale of the responses nor on the number of summed maps; if no response is above 0, their
    largest distance from 0.

    Args:
        total: (..., C, H, W), summed CAMs.
        tags: (..., C), 1 for classes in the tile, 0 for others.
        valid: (..., H, W) bool, see `normalise_cam`; pixels without data have no part in the temperature.

    Returns:
        (..., C, H, W) in [0, 1); 0 for classes that are not tagged, and for pixels without data.
    """
    untagged, empty = (tags == 0)[..., None, None], _without_data(valid, total)
    responses = total.masked_fill(untagged, -torch.inf)
    largest = torch.where(empty, -torch.inf, responses).amax((-3, -2, -1), keepdim=True)
    least = total.masked_fill(untagged | empty, 0.0).amin((-3, -2, -1), keepdim=True)
    temperature = torch.where(largest > 0, largest, -least).clamp_min(EPSILON)
    # Without any tag, all responses are -inf and the softmax is nan.
    shares = (responses / temperature).softmax(-3).nan_to_num()
    return torch.where(empty, 0.0, (normalise_cam(total, tags, valid) + FLOOR) / (1 + FLOOR) * shares)


def replace_zero_cams(cams: Tensor, tags: Tensor) -> Tensor:
    """Gives all tagged classes of a tile the same CAM if no class of the tile responds.

    If all CAMs were 0, CRF and argmax would choose the first class of the dataset, even if it is not tagged.

    Args:
        cams: (..., C, H, W) in [0, 1], see `normalise_cam`.
        tags: (..., C), 1 for classes in the tile, 0 for others.

    Returns:
        The CAMs; for tiles whose CAMs are all 0, those of the tagged classes are 1 instead.
    """
    is_zero = ~cams.flatten(-3).any(-1)[..., None, None, None]
    return torch.where(is_zero, tags.to(cams)[..., None, None].expand_as(cams), cams)


def multi_scale_cams(
    cam_of: Callable[[Tensor], Tensor],
    images: Tensor,
    tags: Tensor,
    scales: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    flip: bool = True,
    pixels: int | None = None,
    *,
    compete: bool = False,
    valid: Tensor | None = None,
) -> Tensor:
    """Computes the fused, normalised CAMs of tiles.

    Args:
        cam_of: Returns the refined CAM (B, C, h, w) of images (B, bands, h, w), at the same size.
        images: (B, bands, H, W), normalised as the network expects.
        tags: (B, C), 1 for classes in the tile, 0 for others.
        scales: Factors by which the images are resized, bilinearly.
        flip: Whether to add the CAM of the horizontally flipped images.
        pixels: Largest number of input pixels of one forward pass, which has at least one image; None for all
            images of a scale in one pass.
        compete: Whether the classes of a pixel compete, see `competing_cams`; by default they do not, as
            published.
        valid: (B, H, W) bool, see `normalise_cam`.

    Returns:
        (B, C, H, W) in [0, 1]; the CAMs of a tile do not depend on the other tiles.

    Raises:
        ValueError: `scales` is empty, or the tags do not fit.
    """
    if len(scales) == 0:
        raise ValueError("multi-scale CAMs need at least one scale")
    height, width = images.shape[-2:]
    total: Tensor | None = None
    for scale in scales:
        size = (max(1, round(scale * height)), max(1, round(scale * width)))
        together = 2 * len(images) if pixels is None else max(1, pixels // (size[0] * size[1]))
        # Of all tiles, the maps at the size of a large view would take many times the memory of `total`.
        groups = [
            _cams_at(size, cam_of, group, together, flip=flip) for group in torch.split(images, together)
        ]
        upsampled = torch.cat(groups)
        total = upsampled if total is None else total + upsampled
    assert total is not None  # noqa: S101 - there is a scale
    return replace_zero_cams((competing_cams if compete else normalise_cam)(total, tags, valid), tags)


def _cams_at(
    size: tuple[int, int], cam_of: Callable[[Tensor], Tensor], images: Tensor, together: int, *, flip: bool
) -> Tensor:
    """The CAMs of views of one size, `together` in a forward pass, at the size of the images; see above."""
    resized = F.interpolate(images, size, mode="bilinear", align_corners=False)
    views = torch.cat([resized, resized.flip(-1)]) if flip else resized
    cams = torch.cat([cam_of(part) for part in torch.split(views, together)])
    if flip:
        plain, flipped = cams.chunk(2)
        cams = plain + flipped.flip(-1)
    return F.interpolate(cams, images.shape[-2:], mode="bilinear", align_corners=False)
