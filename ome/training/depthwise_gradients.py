"""Gradients of depthwise convolutions on a CPU."""

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.compiled import compiled

Pair = tuple[int, int]

SMALL: Final = 9
"""Weights per channel up to which torch's gradient in float32 is fast, without dilation."""


def image_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The gradient of the images of a depthwise convolution, (N, C, H, W), in their precision.

    Without a stride it is a convolution with the reversed weights, which is fast. The parameters are those of
    `weight_gradient`.
    """
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
def _(gradient: Tensor, images: Tensor, kernel: list[int], *sizes: list[int]) -> Tensor:
    del gradient, sizes
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
