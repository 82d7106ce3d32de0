"""Compares two ways to compute the forward and backward passes of a training step."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ome.training.clipping import ClippedModule

Context = Callable[[], AbstractContextManager[object]]
"""Makes the context of a forward pass, such as autocast."""

SMALL: Final = 0.01
"""Tensors below this fraction of the largest norm are compared by that: an exact gradient may be 0, and what
is computed for it is noise, as for the bias of a convolution before BatchNorm."""

ROUNDINGS: Final = 4
"""Largest distance between compiled and eager tensors, in distances between eager and exact ones: two of
these if both are rounded as much, in opposite directions."""


def passes(module: ClippedModule, image: Tensor, context: Context) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of the forward passes of a step, and the gradients of a random weighted sum of them.

    Random numbers, buffers and `.grad` stay as they are.

    Args:
        module: What is trained.
        image: Images of a batch (B, bands, H, W), float.
        context: Context of the forward passes.

    Returns:
        Outputs and gradients of the trained parameters, float32 (float64 for float64 networks), detached.
    """
    buffers = list(module.buffers())
    before = [buffer.clone() for buffer in buffers]
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        with torch.random.fork_rng([image.device] if image.is_cuda else []):
            with context():
                outputs = [leaf for leaf in tree_leaves(module.outputs(image)) if isinstance(leaf, Tensor)]
            noise = [_noise(output) for output in outputs]
            gradients = torch.autograd.grad(outputs, parameters, noise, materialize_grads=True)
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
    return _exact(outputs), _exact(gradients)


def _exact(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]


def _noise(like: Tensor) -> Tensor:
    """Random numbers whose norm is about 1, so that no gradient of float16 overflows."""
    generator = torch.Generator(like.device).manual_seed(0)
    values: Tensor = torch.randn(like.shape, generator=generator, device=like.device) / like.numel() ** 0.5
    return values.to(like.dtype)


def rounding(module: ClippedModule, image: Tensor, context: Context) -> list[Tensor]:
    """How far outputs and gradients are from the same without autocast, each as a fraction of its norm.

    The fractions hardly depend on the number of images, so that a part of a batch is enough.

    Args:
        module: See `passes`, as for the other arguments.
        image: Images.
        context: Context of the forward passes.

    Returns:
        A vector for the outputs and one for the gradients.
    """
    pairs = zip(passes(module, image, context), passes(module, image, nullcontext), strict=True)
    return [_distances(*pair) / _norms(pair[0]).clamp_min(torch.finfo(torch.float32).tiny) for pair in pairs]


def excess(compiled: list[Tensor], eager: list[Tensor], rounded: Tensor, relative: float) -> float:
    """The largest difference between tensors of two lists, as a multiple of what rounding explains.

    Args:
        compiled: Compiled tensors.
        eager: Tensors that they should equal.
        rounded: What autocast rounds off each of them, see `rounding`.
        relative: Relative difference that rounding explains.
    """
    norms = _norms(eager)
    allowed = relative * norms.clamp_min(SMALL * float(norms.max())) + ROUNDINGS * rounded * norms
    return float((_distances(eager, compiled) / allowed).max())


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.norm() for tensor in tensors])


def _distances(ones: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one - other).norm() for one, other in zip(ones, others, strict=True)])


def tolerance(image: Tensor, context: Context) -> float:
    """The relative difference that rounding explains: half of the digits of the precision of the passes."""
    kind = image.device.type
    with context():
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else image.dtype
    return float(torch.finfo(dtype).eps ** 0.5)
