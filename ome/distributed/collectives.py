"""Which process this is among those that share the work, and what they tell each other.

Without a process group (see `ome.distributed.processes`) there is one process, and nothing here does a thing:
torch is not even loaded, which some stages do without.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process works as if there were no other: nothing waits, nothing is shared."""
    global _alone  # noqa: PLW0603 - of the process, as the group is
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def rank() -> int:
    """Rank of this process among all; 0 where there is only one."""
    group = _group()
    return int(group.get_rank()) if group else 0


def world_size() -> int:
    """Number of processes."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def is_rank_zero() -> bool:
    """Whether this process is the one that writes what must be written once."""
    return rank() == 0


def barrier() -> None:
    """Waits until every process is here; returns at once where there is only one."""
    # On the CPU also where GPUs compute: nothing spins, and no device has to be chosen.
    all_reduce_sum(np.zeros(1, dtype=np.int64))


def shard(items: Sequence[T]) -> list[T]:
    """This process's part of the items: every item belongs to exactly one process."""
    return list(items[rank() :: world_size()])


def sum_over_processes(values: "Tensor") -> "Tensor":
    """Adds up a tensor of the same shape over all processes.

    Every process must call this, in the same order as its other calls.

    Args:
        values: Any shape and dtype, on the device that this process computes on or on the CPU.

    Returns:
        The sum, the same on every process, without gradient; a copy of `values` where there is only one.
    """
    total = values.detach().clone()
    if (group := _group()) is not None:
        group.all_reduce(total)
    return total


def all_reduce_sum(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`sum_over_processes` of an array of counts, such as a confusion matrix."""
    if world_size() == 1:
        return counts.copy()
    import torch  # noqa: PLC0415 - several processes have loaded it

    total: NDArray[np.int64] = sum_over_processes(torch.from_numpy(np.asarray(counts))).numpy()
    return total


def gather(value: T) -> list[T]:
    """The value of every process in order of rank, on every process; every process must call this."""
    if (group := _group()) is None:
        return [value]
    values: list[Any] = [None] * world_size()
    group.all_gather_object(values, value)
    return values


def any_rank(condition: bool) -> bool:
    """Whether a condition holds on at least one process; every process must call this."""
    return bool(all_reduce_sum(np.array([condition], dtype=np.int64))[0] > 0)


def rank_zero_value(condition: bool) -> bool:
    """The value of rank 0, on every process: two may briefly see a shared folder differently."""
    return any_rank(condition and is_rank_zero())


def _group() -> Any:  # noqa: ANN401 - a module
    """`torch.distributed` where a process group is up, which cannot be before somebody has imported it."""
    if _alone:
        return None
    loaded: Any = sys.modules.get("torch.distributed")
    return loaded if loaded is not None and loaded.is_available() and loaded.is_initialized() else None
