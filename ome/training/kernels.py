"""Replaces convolutions that torch computes wrongly in bfloat16 by float32 ones."""

from functools import cache
from typing import Final

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


class _Float32:
    """Makes a convolution compute in float32 under autocast."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            result: Tensor = super().forward(images.float())  # type: ignore[misc]
        return result


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
            padded = padding not in {(0, 0), "valid"}
            unsafe = (grouped and max(module.dilation) > 1) or (padded and max(module.kernel_size) > LARGEST)
            sizes = (tuple(size) for size in (module.kernel_size, module.stride, module.dilation))
            if unsafe or is_wrong(per_group, *sizes, padding):
                mix_in(module, _Float32)
                changed += 1
    return changed


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
