"""Weights of plain vision transformers under the names and in the sizes of timm's networks."""

import contextlib
import io
import logging
import sys
from collections.abc import Mapping
from math import isqrt
from typing import Any

from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from ome.networks.checkpoint_file import bare_name

logger = logging.getLogger(__name__)


def fitted_to_timm(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint as timm's network has them.

    Files of the authors (`register_tokens` of DINOv2, `storage_tokens` of DINOv3, `w12` of SwiGLU) are
    renamed by timm's own function; position embeddings of another image size are resampled.

    Args:
        network: A plain transformer of timm.
        tensors: As they were read; files of other networks are returned as they are.
    """
    fitted = {bare_name(name): tensor for name, tensor in tensors.items()}
    if len(fitted) < len(tensors):  # two would have the same name
        return dict(tensors)
    if network.state_dict().keys() - fitted.keys():
        convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        # It fails in many ways where the file is of another network, and prints which biases it leaves out.
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            converted = convert(dict(fitted), network) if convert else fitted
            if network.state_dict().keys() <= converted.keys():
                fitted = converted
    if "pos_embed" in fitted:
        fitted["pos_embed"] = resample_positions(network, fitted["pos_embed"])
    return fitted


def resample_positions(network: nn.Module, embedding: Tensor) -> Tensor:
    """Resamples a position embedding of square images of another size, as timm does for its own weights.

    Args:
        network: A plain transformer.
        embedding: The embedding of a checkpoint (1, tokens, channels).

    Returns:
        The embedding for the network's size; the given one if it fits, or is not of square images.
    """
    target: Any = getattr(network, "pos_embed", None)
    patches: Any = getattr(network, "patch_embed", None)
    if target is None or patches is None or embedding.shape[::2] != target.shape[::2]:
        return embedding
    prefix = target.shape[1] - patches.num_patches  # tokens of no place, such as that of the class
    side = isqrt(max(0, embedding.shape[1] - prefix))
    if embedding.shape == target.shape or not side or side**2 + prefix != embedding.shape[1]:
        return embedding
    grid = [*patches.grid_size]
    logger.info("position embedding resampled from %d x %d to %d x %d patches", side, side, *grid)
    resampled: Tensor = resample_abs_pos_embed(embedding, grid, [side, side], num_prefix_tokens=prefix)
    return resampled
