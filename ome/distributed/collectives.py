"""The rank of this process, and the exchange of values between processes.

Without a process group (see `ome.distributed.processes`), all functions return the result for one process
without loading torch, which some stages do not need.
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
    """Within the block, the functions of this module behave as if this process were the only one."""
    global _alone  # noqa: PLW0603 - the process group is global, too
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def rank() -> int:
    """Rank of this process; 0 if it is the only one."""
    group = _group()
    return int(group.get_rank()) if group else 0


def world_size() -> int:
    """Number of processes."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def is_rank_zero() -> bool:
    """Whether this process has rank 0: it writes files that must be written once."""
    return rank() == 0


def barrier() -> None:
    """Waits until every process has called this."""
    # On the CPU even if processes use GPUs: waiting costs nothing, and no device has to be selected.
    all_reduce_sum(np.zeros(1, dtype=np.int64))


def shard(items: Sequence[T]) -> list[T]:
    """The items of this process; each item belongs to exactly one process."""
    return list(items[rank() :: world_size()])


def sum_over_processes(values: "Tensor") -> "Tensor":
    """Sums a tensor of the same shape over all processes, which must all call this in the same order.

    Args:
        values: Any shape and dtype, on the device of this process or on the CPU.

    Returns:
        The sum, a new tensor without gradient, the same in every process.
    """
    total = values.detach().clone()
    if (group := _group()) is not None:
        group.all_reduce(total)
    return total


def all_reduce_sum(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`sum_over_processes` of an array of counts, such as a confusion matrix."""
    if world_size() == 1:
        return counts.copy()
    import torch  # noqa: PLC0415 - loaded already if there are several processes

    total: NDArray[np.int64] = sum_over_processes(torch.from_numpy(np.asarray(counts))).numpy()
    return total


def gather(value: T) -> list[T]:
    """Returns the values of all processes in order of rank; every process must call this."""
    if (group := _group()) is None:
        return [value]
    values: list[Any] = [None] * world_size()
    group.all_gather_object(values, value)
    return values


def any_rank(condition: bool) -> bool:
    """Whether a condition holds on at least one process; every process must call this."""
    return bool(all_reduce_sum(np.array([condition], dtype=np.int64))[0] > 0)


def rank_zero_value(condition: bool) -> bool:
    """The value of rank 0 in every process, since processes may briefly see a shared folder differently."""
    return any_rank(condition and is_rank_zero())


def _group() -> Any:  # noqa: ANN401 - a module
    """`torch.distributed` if there is a process group, which requires that it is imported; else None."""
    if _alone:
        return None
    loaded: Any = sys.modules.get("torch.distributed")
    return loaded if loaded is not None and loaded.is_available() and loaded.is_initialized() else None
