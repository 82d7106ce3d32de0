"""Several processes that share the work: the group they form, and joining it where a launcher started them.

They meet before the first stage, so that every stage finds the process group up and Lightning finds its
processes running: it never starts any itself.
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
from ome.distributed.rank import Place
from ome.distributed.signals import Stopped
from ome.errors import UserError
from ome.progress import console

# Rank 0 may prepare scenes for hours while the others wait. That a process has died is noticed by whoever
# started it.
_PATIENCE = timedelta(days=1)

LAST_WORDS = 5.0
"""Seconds that the process that failed first has to say why: whoever started them ends all when one ends."""

_BROKEN_GROUP = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
"""Words in what torch.distributed raises in the processes that are left when one has died."""

_place = Place(0, 1, 0, 1)


class LostProcessError(UserError):
    """Another process of the group has ended, and took with it what this one waited for."""

    @classmethod
    def here(cls) -> "LostProcessError":
        """In this process."""
        return cls(
            f"process {rank()} of {world_size()} lost the connection to another, which ended: see what that "
            "one says; the same command resumes where it stopped"
        )


def own_cores() -> int:
    """Cores that this process may use, its neighbours' left to them."""
    return max(1, len(os.sched_getaffinity(0)) // _place.neighbours)


class RunningProcesses(ClusterEnvironment):
    """Makes Lightning use the existing processes, each as a node with one device."""

    creates_processes_externally = True
    main_address = ""
    main_port = 0

    @staticmethod
    def detect() -> bool:
        """Never by itself: it is given to the trainer."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return world_size()

    def global_rank(self) -> int:
        """Rank of this process."""
        return rank()

    def local_rank(self) -> int:
        """The first of one device."""
        return 0

    def node_rank(self) -> int:
        """One process a machine."""
        return rank()

    def set_world_size(self, size: int) -> None:
        """Is known already."""

    def set_global_rank(self, rank: int) -> None:
        """Is known already."""


@contextmanager
def joined(place: Place, *, gpu: bool) -> Iterator[None]:
    """Joins the processes that a launcher started, for the length of the block.

    Of the processes that fail, the first alone raises what it has to say; the others end without a word.

    Args:
        place: See `started_place`.
        gpu: Compute on a GPU each.

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
            f"process {place.rank} of {place.world_size} did not find the others at {where}: see "
            "docs/cluster.md"
        ) from error
    try:
        with group(place, store, gpu=gpu):
            yield
    except (Exception, Stopped) as error:
        status = getattr(error, "status", 1)
        if not is_first(store):
            leave(status, LAST_WORDS)
        # A broken group would hold up the end of the interpreter.
        atexit.register(leave, status)
        if is_broken_group(error):
            raise LostProcessError.here() from error
        raise


@contextmanager
def group(place: Place, store: Store, *, gpu: bool) -> Iterator[None]:
    """Puts this process in its place for the length of the block.

    Args:
        place: Where it stands among the others.
        store: What they meet by.
        gpu: Compute on a GPU each.

    Raises:
        UserError: There are fewer GPUs than processes.
    """
    global _place  # noqa: PLW0603 - a process stands in one place
    if gpu:
        _choose_gpu(place)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // place.neighbours))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.world_size,
        timeout=_PATIENCE,
    )
    _place = place
    console.quiet = place.rank > 0
    # Left only when all went well: leaving waits for the others, which may wait for this one.
    yield
    barrier()
    dist.destroy_process_group()
    _place = Place(0, 1, 0, 1)


def _choose_gpu(place: Place) -> None:
    count = torch.cuda.device_count()
    # SLURM can show each task its own GPU alone.
    index = 0 if count == 1 and place.neighbours == 1 else place.local_rank
    if index >= count:
        raise UserError(
            f"process {place.local_rank} of this machine finds {count} GPUs: start one process for each GPU"
        )
    torch.cuda.set_device(index)


def is_broken_group(error: BaseException) -> bool:
    """Whether another process has gone, by what torch.distributed raises in those that are left."""
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _BROKEN_GROUP)


def is_first(store: Store) -> bool:
    """Whether no other process has failed before; also false where the store has gone with its host."""
    try:
        return store.add("failures", 1) == 1
    except RuntimeError:
        return False


def leave(status: int = 1, pause: float = 0.0) -> NoReturn:
    """Ends this process without waiting for a group that is broken."""
    sys.stdout.flush()
    time.sleep(pause)
    os._exit(status)
