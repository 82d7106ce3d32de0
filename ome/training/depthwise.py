"""Gradients of depthwise convolutions on a CPU, where torch's take most of a training step."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.overrides import TorchFunctionMode

from ome.compiled import compiled

Pair = tuple[int, int]

SMALL: Final = 9
"""Weights per channel up to which torch's gradient in float32 is fast, without dilation."""


def speed_up_depthwise(network: nn.Module) -> None:
    """Lets depthwise convolutions compute their gradients by this module, for a training on a CPU.

    With torch 2.15, gradients of 5 x 5 weights take ten to thirty times as long as their forward pass, and
    dilated ones access memory that is not theirs in bfloat16, see `replace_wrong_kernels`.

    Args:
        network: The network, changed in place; its parameters stay the same objects.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, Depthwise) and _is_depthwise(module):
            kind = type(module)
            module.__class__ = type(kind.__name__, (Depthwise, kind), {})


def _is_depthwise(module: nn.Conv2d) -> bool:
    """Whether each channel has weights of its own, and the padding is the same on both sides."""
    sided = isinstance(module.padding, str) and any(size % 2 == 0 for size in module.kernel_size)
    return 1 < module.groups == module.in_channels == module.out_channels and not sided


class Depthwise:
    """Lets a convolution, of any subclass of `nn.Conv2d`, compute its gradients by this module."""

    def forward(self, images: Tensor) -> Tensor:
        """Computes what the subclass does, e.g. after padding the images by their size."""
        with _Intercepted():
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
        if function is torch.conv2d and (args or (kwargs["input"],))[0].device.type == "cpu":
            return _convolve(*args, **kwargs)
        return function(*args, **kwargs)


def _convolve(
    input: Tensor,  # noqa: A002 - its name in torch
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d` in the precision of autocast, for a depthwise weight of shape (C, 1, kh, kw)."""
    del groups
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
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        images, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        wanted = ctx.needs_input_grad  # type: ignore[attr-defined]
        with torch.autocast("cpu", enabled=False):
            of_images = _image_gradient(gradient, images, weight, *ctx.sizes) if wanted[0] else None  # type: ignore[attr-defined]
            of_weight = weight_gradient(gradient, images, weight, *ctx.sizes) if wanted[1] else None  # type: ignore[attr-defined]
        return of_images, of_weight, None, None, None


def _image_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The gradient of the images: without a stride a convolution with the reversed weights, which is fast."""
    sizes = zip(dilation, weight.shape[2:], padding, strict=True)
    outer = [step * (size - 1) - pad for step, size, pad in sizes]
    if stride == (1, 1) and min(outer) >= 0:
        reverse = weight.flip(2, 3).to(gradient.dtype)
        return torch.conv2d(gradient, reverse, None, 1, outer, dilation, len(weight))
    # It does not depend on the images' values.
    images = torch.empty_like(images, dtype=torch.promote_types(weight.dtype, torch.float32))
    return _by_torch(0, gradient, images, weight, stride, padding, dilation).to(gradient.dtype)


def weight_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The gradient of the weights of a depthwise convolution, summed in float32 or more.

    Args:
        gradient: Gradient of the result, (N, C, h, w).
        images: (N, C, H, W).
        weight: (C, 1, kh, kw).
        stride: Of rows and columns.
        padding: Rows and columns of zeros on either side.
        dilation: Distance of the weights in rows and columns.

    Returns:
        (C, 1, kh, kw); equal bytes for any number of threads.
    """
    if weight.dtype == torch.float64 or (weight[0].numel() <= SMALL and dilation == (1, 1)):
        return _by_torch(1, gradient, images, weight, stride, padding, dilation)
    sizes = (list(size) for size in (weight.shape[2:], stride, padding, dilation))
    result: Tensor = _by_numba(gradient, images, *sizes)
    return result


def _by_torch(which: int, gradient: Tensor, images: Tensor, weight: Tensor, *sizes: Pair) -> Tensor:
    """Torch's gradient in float32 or more, of the images (0) or the weights (1)."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    tensors = (tensor.to(dtype) for tensor in (gradient, images, weight))
    mask = [which == 0, which == 1, False]
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        *tensors, None, *sizes, False, [0, 0], len(weight), mask
    )
    return gradients[which]


@torch.library.custom_op("ome::depthwise_weight_gradient", mutates_args=())
def _by_numba(
    gradient: Tensor,
    images: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """The gradient of the weights by `_sum_products`; for `torch.compile` one operator."""
    moved = [tensor.detach().float().permute(0, 2, 3, 1).contiguous() for tensor in (images, gradient)]
    shown, upstream = (tensor.numpy() for tensor in moved)
    count, channels = len(shown), shown.shape[3]
    sums = np.zeros((count, *kernel, channels), np.float32)
    sizes = (*stride, *padding, *dilation)

    def sum_image(image: int) -> None:
        _sum_products(shown[image], upstream[image], *sizes, sums[image])

    threads = min(torch.get_num_threads(), count)
    list((_pool(threads).map if threads > 1 else map)(sum_image, range(count)))
    return torch.from_numpy(sums.sum(axis=0)).permute(2, 0, 1).unsqueeze(1).contiguous()


@_by_numba.register_fake
def _(
    gradient: Tensor,
    images: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    del gradient, stride, padding, dilation
    return images.new_empty((images.shape[1], 1, *kernel), dtype=torch.float32)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "depthwise")


@compiled(fastmath={"contract", "reassoc"}, error_model="numpy")
def _sum_products(
    image: NDArray[np.float32],
    gradient: NDArray[np.float32],
    down: int,
    right: int,
    above: int,
    left: int,
    row_step: int,
    column_step: int,
    sums: NDArray[np.float32],
) -> None:
    """Adds up image times gradient for each weight and channel.

    Args:
        image: (H, W, C).
        gradient: (h, w, C).
        down: Stride of rows.
        right: Stride of columns.
        above: Padding of rows.
        left: Padding of columns.
        row_step: Dilation of rows.
        column_step: Dilation of columns.
        sums: (kh, kw, C), changed in place.
    """
    height, width, channels = image.shape
    rows, columns = gradient.shape[:2]
    for row in range(rows):
        for i in range(sums.shape[0]):
            y = row * down - above + i * row_step
            if not 0 <= y < height:
                continue
            for j in range(sums.shape[1]):
                shift = j * column_step - left
                column = max(0, (right - 1 - shift) // right)
                end = min(columns, (width - 1 - shift) // right + 1)
                total = sums[i, j]
                # Four columns at a time: the sums are read and written once for all.
                while column + 4 <= end:
                    x = column * right + shift
                    a, b = image[y, x], image[y, x + right]
                    c, d = image[y, x + 2 * right], image[y, x + 3 * right]
                    e, f = gradient[row, column], gradient[row, column + 1]
                    g, h = gradient[row, column + 2], gradient[row, column + 3]
                    for k in range(channels):
                        total[k] += (a[k] * e[k] + b[k] * f[k]) + (c[k] * g[k] + d[k] * h[k])
                    column += 4
                while column < end:
                    a, e = image[y, column * right + shift], gradient[row, column]
                    for k in range(channels):
                        total[k] += a[k] * e[k]
                    column += 1
