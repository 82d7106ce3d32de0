"""A running average of the weights, which is validated and is the result of the training.

Polyak & Juditsky, SIAM Journal on Control and Optimization 1992; Tarvainen & Valpola, NeurIPS 2017.
"""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_Pairs = dict[torch.dtype, tuple[list[Tensor], list[Tensor]]]


class _Average(AveragedModel):
    """torch's average of all parameters and buffers, without a device synchronisation at every step.

    torch reads from the device at each step whether it is the first, and averages integers (BatchNorm's
    counters of batches) one by one, in four kernels each.
    """

    def __init__(self, model: nn.Module, decay: float, device: torch.device | None = None) -> None:
        super().__init__(model, device, use_buffers=True)
        self._decay = decay
        self._first: bool | None = None
        self._tensors: _Pairs = {}

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves the average towards the weights and buffers of the model; pass the same model each time."""
        if self._first is None:
            self._first = not int(self.n_averaged)  # one synchronisation: a checkpoint may have been loaded
            self._tensors = _by_dtype(self.module, model)
        for dtype, (averages, weights) in self._tensors.items():
            if self._first:
                torch._foreach_copy_(averages, weights)
            elif dtype.is_floating_point:
                torch._foreach_lerp_(averages, weights, 1 - self._decay)
            else:
                _average_counts(averages, weights, self._decay)
        self._first = False
        self.n_averaged += 1


def _by_dtype(average: nn.Module, model: nn.Module) -> _Pairs:
    """All parameters and buffers of both modules by data type."""
    pairs: _Pairs = {}
    tensors = ((*module.parameters(), *module.buffers()) for module in (average, model))
    for mean, weight in zip(*tensors, strict=True):
        averages, weights = pairs.setdefault(mean.dtype, ([], []))
        averages.append(mean)
        weights.append(weight)
    return pairs


def _average_counts(averages: list[Tensor], current: list[Tensor], decay: float) -> None:
    """Averages integers, concatenated to one tensor; truncates the result, as torch does."""
    old, new = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (averages, current))
    mean = (old * decay + new * (1 - decay)).to(old.dtype)
    parts = torch.split(mean, [average.numel() for average in averages])
    torch._foreach_copy_(averages, [p.view_as(average) for p, average in zip(parts, averages, strict=True)])


class _Averaging(WeightAveraging):
    """Lightning's callback with `_Average`."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Creates the average when a fit begins."""
        del trainer
        if stage == "fit":
            # The module itself is moved later; Lightning tells it by now where to.
            self._average_model = _Average(pl_module, self._decay, pl_module.device)


def averaging(memory: float, total_steps: int) -> list[Callback]:
    """Callbacks that keep an exponential moving average of the weights and of BatchNorm's statistics.

    Args:
        memory: Time constant of the average as a fraction of all steps: its decay is
            1 - 1 / (memory * total_steps). With 0 nothing is averaged.
        total_steps: Optimiser steps of the whole training.

    Returns:
        One callback, or an empty list.
    """
    if not memory:
        return []
    decay = 1 - 1 / max(1.0, memory * total_steps)
    return [_Averaging(decay)]
