"""BatchNorm whose statistics are those of the whole batch, over all processes."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


def synchronise_batchnorm(module: nn.Module, device: torch.device) -> None:
    """Replaces every BatchNorm below `module`; names and tensors of its state stay as they are.

    Args:
        module: Changed in place.
        device: Where it will train. torch's own layers take batches on a GPU alone.
    """
    nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if device.type == "cpu":
        for layer in module.modules():
            if isinstance(layer, nn.SyncBatchNorm):
                layer.__class__ = CpuSyncBatchNorm


class CpuSyncBatchNorm(nn.SyncBatchNorm):
    """`nn.SyncBatchNorm` on the CPU: sums over all processes in place of a GPU's kernels.

    Batches are equally large on every process.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalises (B, C, ...) by the batch of all processes; in eval mode by the running statistics."""
        if not self.training:
            return super().forward(input)
        shape = [1, -1, *[1] * (input.ndim - 2)]
        over = [0, *range(2, input.ndim)]
        count = input.numel() // input.shape[1] * dist.get_world_size()
        # Two passes: the mean of the squares less the square of the mean loses digits.
        mean = all_reduce(input.sum(over)) / count
        centred = input - mean.view(shape)
        variance = all_reduce(centred.square().sum(over)) / count
        self._keep(mean, variance * (count / max(count - 1, 1)))
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is None:
            return normalised
        return normalised * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
