"""BatchNorm counts its batches, which checkpoints alone read: in one operator, not in one a layer."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def counted_together(network: nn.Module) -> Iterator[None]:
    """Within it, a call of a network moves the counters of all its BatchNorms at once, when it returns.

    A layer that a call meets more than once is counted once. Layers of other kinds than torch's own, and
    those whose mean depends on the count, count by themselves.
    """
    layers = [layer for layer in network.modules() if type(layer).forward is _BatchNorm.forward]
    taken: list[tuple[_BatchNorm, Tensor]] = []

    def take(*_: object) -> None:
        for layer in layers:
            assert isinstance(layer, _BatchNorm)  # noqa: S101 - it has its forward
            if layer.training and layer.momentum is not None and layer.num_batches_tracked is not None:
                taken.append((layer, layer.num_batches_tracked))
                layer.num_batches_tracked = None

    def give(*_: object) -> None:
        for layer, counter in taken:
            layer.num_batches_tracked = counter
        if taken:
            torch._foreach_add_([counter for _, counter in taken], 1)
        taken.clear()

    hooks = network.register_forward_pre_hook(take), network.register_forward_hook(give, always_call=True)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
