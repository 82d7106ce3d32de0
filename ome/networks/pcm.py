"""The pixel correlation module (PCM) of SEAM (Wang et al., CVPR 2020, section 3.3) as pure functions."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

EPSILON = 1e-5

ENTRIES = 1 << 26
"""Entries of the affinity matrix computed at a time: 256 MB in float32."""


@torch.no_grad()
def clean_cam(cam: Tensor) -> Tensor:
    """Normalises a CAM (B, C, h, w) to [0, 1] and keeps only the strongest class of each pixel; no gradient.

    Each class map is clipped at 0 and divided by its maximum over the pixels; then every value below the
    pixel's maximum over the classes is set to 0. There is no background class.
    """
    positive = F.relu(cam.detach())
    peak = positive.amax(dim=(2, 3), keepdim=True) + EPSILON
    normalised = F.relu(positive - EPSILON) / peak
    return torch.where(normalised < normalised.amax(dim=1, keepdim=True), 0.0, normalised)


def _refine_columns(cam: Tensor, embedding: Tensor, columns: Tensor) -> Tensor:
    affinity = F.relu(embedding.transpose(1, 2) @ columns, inplace=True)
    return (cam @ affinity) / (affinity.sum(dim=1, keepdim=True) + EPSILON)


def pixel_correlation(cam: Tensor, embedding: Tensor, entries: int | None = ENTRIES) -> Tensor:
    """Refines a CAM by the similarity of pixel embeddings.

    With g the embedding divided by its norm + 1e-5, the affinity is A = ReLU(g^T g) with each column divided
    by its sum + 1e-5, and the result is CAM @ A. Columns of A are independent, so they are computed in
    blocks, and again in the backward pass: memory does not grow with (hw)^2. All is computed in float32 also
    under autocast, since the sum of a column has hw terms.

    Args:
        cam: Maps to refine (B, C, h, w).
        embedding: Pixel embeddings (B, D, h, w).
        entries: Entries of A, over all B images, computed at a time (at least one column); None for all.

    Returns:
        The refined maps (B, C, h, w), float32 (float64 for float64 inputs).
    """
    with torch.autocast(cam.device.type, enabled=False):
        dtype = torch.promote_types(embedding.dtype, torch.float32)
        maps = cam.flatten(2).to(dtype)
        vectors = embedding.flatten(2).to(dtype)
        vectors = vectors / (vectors.norm(dim=1, keepdim=True) + EPSILON)
        images, _, pixels = vectors.shape
        block = pixels if entries is None else max(1, entries // (images * pixels))
        if block >= pixels:
            return _refine_columns(maps, vectors, vectors).reshape(cam.shape)
        refined = []
        for columns in vectors.split(block, dim=2):
            part = (
                checkpoint(_refine_columns, maps, vectors, columns, use_reentrant=False)
                if torch.is_grad_enabled() and (vectors.requires_grad or maps.requires_grad)
                else _refine_columns(maps, vectors, columns)
            )
            refined.append(part)
        return torch.cat(refined, dim=2).reshape(cam.shape)
