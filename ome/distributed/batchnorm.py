"""BatchNorm with the statistics of the whole batch of all processes."""

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from ome.distributed.collectives import sum_over_processes


def synchronise_batchnorm(module: nn.Module, device: torch.device) -> None:
    """Replaces every BatchNorm in `module` by a synchronised one; its state dict does not change.

    Args:
        module: Changed in place.
        device: The device on which it will be trained. torch's synchronised layer works on a GPU only.
    """
    if device.type != "cpu":
        # torch's own conversion drops the activation of timm's layers.
        convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    kinds = {nn.BatchNorm2d: CpuSyncBatchNorm, BatchNormAct2d: CpuSyncBatchNormAct}
    for layer in module.modules():
        layer.__class__ = kinds.get(type(layer), type(layer))


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """Like `nn.SyncBatchNorm`, but on the CPU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalises (B, C, H, W) by the batch of all processes, in eval mode by the running statistics."""
        if not self.training:
            return super().forward(input)
        # As in torch's layers, statistics are at least float32 even if autocast has lowered the input's
        # precision.
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        # Processes may have batches of different sizes.
        own = values.new_full((1,), values.numel() // values.shape[1])
        total = _sum(torch.cat([values.sum(dim=(0, 2, 3)), own]))
        # Two passes, because the mean of squares minus the square of the mean loses digits.
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = values - mean.view(1, -1, 1, 1)
        variance = _sum(centred.square().sum(dim=(0, 2, 3))) / count
        self._update_running(mean, variance * (count / (count - 1).clamp_min(1)))
        normalised = centred * torch.rsqrt(variance + self.eps).view(1, -1, 1, 1)
        if self.affine:
            normalised = normalised * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None  # noqa: S101 - torch ensures it
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class CpuSyncBatchNormAct(CpuSyncBatchNorm):
    """The same for timm's BatchNorm with an activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalises (B, C, H, W), and applies the activation."""
        activated: Tensor = self.act(self.drop(super().forward(input)))
        return activated


class _SumOverProcesses(torch.autograd.Function):
    """A sum over processes with a gradient: the sum over processes of the gradients of the result."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        del ctx
        return sum_over_processes(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        del ctx
        return sum_over_processes(gradient)


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)
    return total
