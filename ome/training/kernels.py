"""Replaces convolutions whose gradients torch computes wrongly on a CPU."""

from functools import cache
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.training.depthwise import Depthwise, mix_in

TOLERANCE: Final = 0.02
"""Relative error of a weight gradient that rounding to bfloat16 explains; it is about 0.002."""

SIDES: Final = (32, 48)
"""Sides in pixels of the tested maps: the kernel that torch selects depends on them."""

LARGEST: Final = 7
"""Side in pixels of the largest padded kernel that is tested."""

GROUPS, BATCH, CHANNELS = 16, 2, 16

NARROW: Final = 16
"""Input channels from which on 1 x 1 convolutions with a stride have safe gradients."""


class _Float32:
    """Makes a convolution compute in float32 under autocast."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            result: Tensor = super().forward(images.float())  # type: ignore[misc]
        return result


class _Subsampling:
    """Makes a 1 x 1 convolution read every n-th pixel itself: the same result by a kernel without stride."""

    steps: Any

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = self.steps
        result: Tensor = super().forward(images[..., ::rows, ::columns])  # type: ignore[misc]
        return result


def replace_unsafe_strides(network: nn.Module) -> None:
    """Lets 1 x 1 convolutions of few channels, such as the stem of RepVGG, compute without a stride.

    With torch 2.15 in the channels-last layout, the gradient of their weights accesses memory that is not
    its own, in every precision: it may be wrong, or kill the process.

    Args:
        network: The network, changed in place; its parameters stay the same objects.
    """
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.groups == 1 < max(module.stride)
            and module.in_channels < NARROW
            and tuple(module.kernel_size) == (1, 1)
            and not _is_padded(module)
        ):
            mix_in(module, _Subsampling)
            cast("_Subsampling", module).steps, module.stride = module.stride, (1, 1)


def replace_wrong_kernels(network: nn.Module) -> int:
    """Lets convolutions whose bfloat16 kernel for CPUs gives wrong gradients compute in float32.

    With torch 2.15 in the channels-last layout, two kinds of weight gradients access memory that is not
    theirs, which may kill the process: those of dilated convolutions in groups, which are also wrong by more
    than 100 % or infinite, and those of padded kernels of more than `LARGEST` pixels. These are therefore
    replaced without a test; every other kind of convolution is tested once, in a few milliseconds.

    Args:
        network: The network, changed in place; its parameters stay the same objects.

    Returns:
        Number of convolutions that were changed.
    """
    changed = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, _Float32 | Depthwise):
            grouped = module.groups > 1
            per_group = module.in_channels // module.groups if grouped else 0
            # Some encoders give lists.
            padding = module.padding if isinstance(module.padding, str) else tuple(module.padding)
            is_large = _is_padded(module) and max(module.kernel_size) > LARGEST
            unsafe = (grouped and max(module.dilation) > 1) or is_large
            sizes = (tuple(size) for size in (module.kernel_size, module.stride, module.dilation))
            if unsafe or is_wrong(per_group, *sizes, padding):
                mix_in(module, _Float32)
                changed += 1
    return changed


def _is_padded(module: nn.Conv2d) -> bool:
    return module.padding != "valid" and (isinstance(module.padding, str) or any(module.padding))


@cache
def is_wrong(
    per_group: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...] | str,
) -> bool:
    """Whether the weight gradient of a convolution in bfloat16 differs from float32's by more than rounding.

    Not for those that `replace_wrong_kernels` replaces without a test.

    Args:
        per_group: Channels of a group; 0 for a convolution without groups.
        kernel: Its size.
        stride: Its stride.
        dilation: Its dilation.
        padding: Its padding, as `nn.Conv2d` has it.
    """
    generator = torch.Generator().manual_seed(0)
    layout, groups = torch.channels_last, GROUPS if per_group else 1
    channels = groups * (per_group or CHANNELS)

    def gradient(images: Tensor, weight: Tensor) -> Tensor:
        weight.requires_grad_()
        result = F.conv2d(images, weight, None, stride, padding, dilation, groups)
        upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.dtype)
        (gradients,) = torch.autograd.grad(result, weight, upstream.contiguous(memory_format=layout))
        return gradients.float()

    for least in SIDES:
        side = max(least, *((size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)))
        shapes = (BATCH, channels, side, side), (channels, channels // groups, *kernel)
        pair = [
            torch.randn(shape, generator=generator).bfloat16().to(memory_format=layout) for shape in shapes
        ]
        exact = gradient(*(tensor.float() for tensor in pair))
        error = (gradient(*pair) - exact).norm() / exact.norm()
        if not error <= TOLERANCE:  # also nan
            return True
    return False
