"""A running average of the weights while training: what is validated, and what is left in the end.

Polyak & Juditsky, SIAM Journal on Control and Optimization 1992; Tarvainen & Valpola, NeurIPS 2017.
"""

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ome.training.clipping import ClippedModule


class AveragedModule(ClippedModule):
    """A module that can keep an exponential moving average of its `network`, buffers included.

    `network` is what the optimiser trains until the training ends; then it has the averaged weights.
    """

    network: Any
    _averaged: AveragedModel | None

    def average_weights(self, memory: float, total_steps: int) -> None:
        """Begins the average; called once `network` is there.

        Args:
            memory: Fraction of all steps that the average looks back on: its decay is
                1 - 1 / (memory * total_steps). With 0 nothing is averaged.
            total_steps: Optimiser steps of the whole training.
        """
        self._averaged = None
        if memory:
            decay = 1 - 1 / max(1.0, memory * total_steps)
            mean_of = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            average = AveragedModel(self.network, multi_avg_fn=mean_of, use_buffers=True)
            self._averaged = average.requires_grad_(False)

    @property
    def scored_network(self) -> nn.Module:
        """The averaged network where there is one, else the network itself."""
        network: nn.Module = self.network if self._averaged is None else self._averaged.module
        return network

    def on_train_epoch_start(self) -> None:
        """Keeps the average's layers as they predict; Lightning puts all into training mode."""
        if self._averaged is not None:
            self._averaged.eval()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's
        """Takes the step's weights into the average."""
        del outputs, batch, batch_idx
        if self._averaged is not None:
            self._averaged.update_parameters(self.network)

    def on_train_end(self) -> None:
        """Leaves the averaged weights in the network."""
        if self._averaged is not None:
            self.network.load_state_dict(self._averaged.module.state_dict())
