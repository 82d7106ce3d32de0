"""Updates the batch counters of all BatchNorm layers in one operator instead of one per layer."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def counted_together(network: nn.Module) -> Iterator[None]:
    """While the block runs, each call of the network updates all its BatchNorm counters at once, at the end.

    A layer that is called several times in one call counts once. Subclasses with another forward, and layers
    whose statistics depend on the counter, keep their own counting.
    """
    layers = [layer for layer in network.modules() if type(layer).forward is _BatchNorm.forward]
    detached: list[tuple[_BatchNorm, Tensor]] = []

    def detach(*_: object) -> None:
        for layer in layers:
            assert isinstance(layer, _BatchNorm)  # noqa: S101 - it has its forward
            if layer.training and layer.momentum is not None and layer.num_batches_tracked is not None:
                detached.append((layer, layer.num_batches_tracked))
                layer.num_batches_tracked = None

    def restore(*_: object) -> None:
        for layer, counter in detached:
            layer.num_batches_tracked = counter
        if detached:
            torch._foreach_add_([counter for _, counter in detached], 1)
        detached.clear()

    after = network.register_forward_hook(restore, always_call=True)
    hooks = network.register_forward_pre_hook(detach), after
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
