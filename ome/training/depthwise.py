"""Depthwise convolutions that train on a CPU, where torch's gradients take most of a step."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from ome.training.depthwise_gradients import SMALL, Pair, image_gradient, weight_gradient


def speed_up_depthwise(network: nn.Module) -> None:
    """Lets depthwise convolutions compute their gradients by this module, for a training on a CPU.

    With torch 2.15, gradients of 5 x 5 weights take ten to thirty times as long as their forward pass, and
    dilated ones access memory that is not theirs in bfloat16, see `replace_wrong_kernels`. Those of 3 x 3
    weights are fast without stride and dilation, and stay.

    Args:
        network: The network, changed in place; its parameters stay the same objects.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, Depthwise) and _is_slow(module):
            mix_in(module, Depthwise)


def mix_in(module: nn.Module, mixin: type) -> None:
    """Puts a class before that of a module, whose parameters, hooks and name of its class stay."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (mixin, kind), {})


def _is_slow(module: nn.Conv2d) -> bool:
    """Whether it is a depthwise convolution whose gradients torch computes slowly.

    Named padding of an even kernel, which is not the same on both sides, is left to torch.
    """
    sided = isinstance(module.padding, str) and any(size % 2 == 0 for size in module.kernel_size)
    plain = {*module.stride, *module.dilation} == {1} and math.prod(module.kernel_size) <= SMALL
    return 1 < module.groups == module.in_channels == module.out_channels and not sided and not plain


class Depthwise:
    """Lets a convolution, of any subclass of `nn.Conv2d`, compute its gradients by this module."""

    def forward(self, images: Tensor) -> Tensor:
        """Computes what the subclass does, e.g. after padding the images by their size."""
        # Without gradients as the network does when it is loaded from a file.
        with _Intercepted() if torch.is_grad_enabled() else nullcontext():
            result: Tensor = super().forward(images)  # type: ignore[misc]
        return result


class _Intercepted(TorchFunctionMode):
    """Replaces `torch.conv2d` by `_convolve` where the device is a CPU."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - of any function of torch
        del types
        kwargs = kwargs or {}
        ours = function is torch.conv2d and (args or (kwargs["input"],))[0].device.type == "cpu"
        return (_convolve if ours else function)(*args, **kwargs)


def _convolve(
    input: Tensor,  # noqa: A002 - its name in torch
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d` in the precision of autocast; for anything but a depthwise convolution torch's own."""
    if input.ndim != 4 or not groups == input.shape[1] == len(weight):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    mixed = torch.is_autocast_enabled("cpu")
    images = input.to(torch.get_autocast_dtype("cpu")) if mixed else input
    dilation = _pair(dilation)
    if isinstance(padding, str):
        sizes = zip(dilation, weight.shape[2:], strict=True)
        padding = (0, 0) if padding == "valid" else cast("Pair", tuple(d * (k - 1) // 2 for d, k in sizes))
    result: Tensor = _Convolution.apply(images, weight, _pair(stride), _pair(padding), dilation)
    return result if bias is None else result + bias.to(result.dtype)[:, None, None]


def _pair(size: int | Pair) -> Pair:
    return (size, size) if isinstance(size, int) else cast("Pair", tuple(size))


class _Convolution(torch.autograd.Function):
    """A depthwise convolution with the gradients of this module."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        images: Tensor,
        weight: Tensor,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.sizes = stride, padding, dilation
        return torch.conv2d(images, weight.to(images.dtype), None, stride, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        tensors, (for_images, for_weight) = ctx.saved_tensors, ctx.needs_input_grad[:2]
        with torch.autocast("cpu", enabled=False):
            of_images = image_gradient(gradient, *tensors, *ctx.sizes) if for_images else None
            of_weight = weight_gradient(gradient, *tensors, *ctx.sizes) if for_weight else None
        return of_images, of_weight, None, None, None
