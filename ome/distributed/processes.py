"""The process group, which processes form themselves or join after a launcher has started them.

It is formed before the first stage, so that all stages can use it, and Lightning uses the existing processes
instead of starting any.
"""

import atexit
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from ome.distributed.collectives import barrier, rank, world_size
from ome.distributed.rank import Place, is_limited_by_torchrun
from ome.distributed.signals import Stopped
from ome.errors import UserError
from ome.progress import console

# Rank 0 may prepare scenes for hours while the others wait. The launcher notices the end of a process.
_TIMEOUT = timedelta(days=1)

SECONDS_TO_REPORT = 5.0
"""Other processes end this much later than the first that failed, as a launcher ends all when one ends."""

_BROKEN_GROUP = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
"""Words in the errors of torch.distributed after another process has ended."""

_place = Place(0, 1, 0, 1)


class LostProcessError(UserError):
    """Another process of the group has ended while this one waited for it."""

    @classmethod
    def here(cls) -> "LostProcessError":
        """The error for this process."""
        return cls(
            f"process {rank()} of {world_size()} lost the connection to another process, which ended: see "
            "its error; the same command resumes where it stopped"
        )


def process_cores() -> int:
    """Number of cores for this process, if all processes that share cores get the same number."""
    return max(1, len(os.sched_getaffinity(0)) // _place.neighbours)


class RunningProcesses(ClusterEnvironment):
    """Makes Lightning use the existing processes, each as a node with one device."""

    creates_processes_externally = True
    main_address = ""
    main_port = 0

    @staticmethod
    def detect() -> bool:
        """Is always false, since the trainer gets the environment as an argument."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return world_size()

    def global_rank(self) -> int:
        """Rank of this process."""
        return rank()

    def local_rank(self) -> int:
        """Rank within the node, which has one device."""
        return 0

    def node_rank(self) -> int:
        """Rank of this process, since each process is a node."""
        return rank()

    def set_world_size(self, size: int) -> None:
        """Does nothing: the process group determines it."""

    def set_global_rank(self, rank: int) -> None:
        """Does nothing: the process group determines it."""


@contextmanager
def joined_group(place: Place, *, gpu: bool) -> Iterator[None]:
    """Joins the group of the processes that a launcher started, for the duration of the block.

    Only the first process that fails raises its error; the others exit without a message.

    Args:
        place: See `started_place`.
        gpu: Whether each process uses a GPU.

    Raises:
        UserError: The processes do not find each other.
    """
    if "MASTER_ADDR" not in os.environ:
        slurm = SLURMEnvironment()
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}
    try:
        peers = rendezvous("env://", place.rank, place.world_size, timeout=timedelta(minutes=5))
        store: Store = next(peers)[0]
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"process {place.rank} of {place.world_size} cannot connect to the others at {where}: see "
            "docs/cluster.md"
        ) from error
    try:
        with group(place, store, gpu=gpu):
            yield
    except (Exception, Stopped) as error:
        status = getattr(error, "status", 1)
        if not is_first_failure(store):
            exit_at_once(status, SECONDS_TO_REPORT)
        # The interpreter would wait for the broken group.
        atexit.register(exit_at_once, status)
        if is_broken_group(error):
            raise LostProcessError.here() from error
        raise


@contextmanager
def group(place: Place, store: Store, *, gpu: bool) -> Iterator[None]:
    """Creates the process group for the duration of the block.

    Args:
        place: Rank of this process and size of the group.
        store: Store that all processes of the group share.
        gpu: Whether each process uses a GPU.

    Raises:
        UserError: There are fewer GPUs than processes.
    """
    global _place  # noqa: PLW0603 - there is one process group
    if gpu:
        _choose_gpu(place)
    else:
        cores = len(os.sched_getaffinity(0))
        threads = cores if is_limited_by_torchrun(place) else torch.get_num_threads()
        torch.set_num_threads(max(1, threads // place.neighbours))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.world_size,
        timeout=_TIMEOUT,
    )
    _place = place
    console.quiet = place.rank > 0
    # Only without an error: destroying the group waits for the others, which may wait for this process.
    yield
    barrier()
    dist.destroy_process_group()
    _place = Place(0, 1, 0, 1)


def _choose_gpu(place: Place) -> None:
    count = torch.cuda.device_count()
    # SLURM can make a different GPU visible to each task, always as number 0.
    index = 0 if count == 1 and place.neighbours == 1 else place.local_rank
    if index >= count:
        raise UserError(
            f"process {place.local_rank} of this machine finds {count} GPUs: start one process per GPU"
        )
    torch.cuda.set_device(index)


def is_broken_group(error: BaseException) -> bool:
    """Whether torch.distributed raised an error because another process has ended."""
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _BROKEN_GROUP)


def is_first_failure(store: Store) -> bool:
    """Whether no process has failed before; false if the process with the store has ended."""
    try:
        return store.add("failures", 1) == 1
    except RuntimeError:
        return False


def exit_at_once(status: int = 1, pause: float = 0.0) -> NoReturn:
    """Ends this process after `pause` seconds, without waiting for a broken process group."""
    sys.stdout.flush()
    time.sleep(pause)
    os._exit(status)
