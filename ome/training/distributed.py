"""Which process this is among those that share the work."""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    """Global rank of this process, also before the process group is up; 0 where there is only one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def world_size() -> int:
    """Number of processes in the process group; 1 before it is up."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_leader() -> bool:
    """Whether this process is the one that writes what must be written once."""
    return rank() == 0


def barrier() -> None:
    """Waits until every process is here; returns at once where there is only one."""
    if world_size() > 1:
        dist.barrier()


def share(items: Sequence[T]) -> list[T]:
    """This process's part of the items: every item belongs to exactly one process."""
    return list(items[rank() :: world_size()])
