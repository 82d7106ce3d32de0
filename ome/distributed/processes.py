"""Several processes that share the work: started here, or joined where a launcher started them.

They meet before the first stage, so that every stage finds the process group up and Lightning finds its
processes running: it never starts any itself.
"""

import atexit
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed.rendezvous import rendezvous
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from ome.distributed.collectives import barrier, rank, world_size
from ome.distributed.rank import Place
from ome.distributed.signals import SIGNALS, Stopped, stopping_on_signals
from ome.errors import UserError
from ome.progress import console

# The leader may prepare scenes for hours while the others wait. That a process has died is noticed by whoever
# started it.
_PATIENCE = timedelta(days=1)

_LAST_WORDS = 5.0
"""Seconds that the process that failed first has to say why: whoever started them ends all when one ends."""

_GRACE = 300.0
"""Seconds in which processes that were told to stop may write a checkpoint."""

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
    """Tells Lightning that the processes are there; each is to it a machine with one device."""

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
        with _group(place, store, gpu=gpu):
            yield
    except (Exception, Stopped) as error:
        status = getattr(error, "status", 1)
        if not _is_first(store):
            _leave(status, _LAST_WORDS)
        # A broken group would hold up the end of the interpreter.
        atexit.register(_leave, status)
        if _is_broken_group(error):
            raise LostProcessError.here() from error
        raise


def run_in_processes(count: int, work: Callable[[], object], *, gpu: bool) -> None:
    """Does the work in processes of this machine; when one fails, the others end too.

    Args:
        count: Number of processes.
        work: To be done by each of them, within the group; it must be picklable.
        gpu: Compute on a GPU each.

    Raises:
        UserError: One raised it, or was killed.
        Stopped: This process was told to stop; so were they.
    """
    # It says that it terminates the others, which is no news.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    # Here and not in the first of them, so that it outlives whichever fails.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    failures = get_context("spawn").SimpleQueue()
    started: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        _run, (count, store.port, gpu, work, failures), count, join=False, start_method="spawn"
    )
    try:
        while not started.join():
            pass
    except (KeyboardInterrupt, Stopped):
        _end(started)
        raise
    except ProcessExitedException:
        exits = [process.exitcode or 0 for process in started.processes]
        reason = why_ended(exits, None if failures.empty() else failures.get())
        if reason is None:
            raise
        raise reason from None


def why_ended(exits: Sequence[int], said: BaseException | None) -> BaseException | None:
    """What to raise after processes have failed.

    Args:
        exits: Their exit codes, minus the signal's number where one ended it.
        said: What the first that could say anything did. A process that is ended from outside cannot; that
            the others are told to stop then, or lose their connection to it, is no news.

    Returns:
        An error that says what went wrong; None where nothing is known.
    """
    ended = [-status for status in exits if status < 0 and -status not in SIGNALS]
    if not ended or not (said is None or isinstance(said, Stopped | LostProcessError)):
        return said
    index, name = exits.index(-ended[0]), signal.Signals(ended[0]).name
    why = ", probably out of memory" if ended[0] == signal.SIGKILL else ""
    return UserError(
        f"process {index} of {len(exits)} was killed ({name}){why}; the same command resumes where it stopped"
    )


def _run(index: int, count: int, port: int, gpu: bool, work: Callable[[], object], failures: Any) -> None:  # noqa: ANN401
    """One of the processes that `run_in_processes` starts; it says what went wrong to the one that did."""
    store = TCPStore("127.0.0.1", port, is_master=False)
    error: BaseException
    try:
        with stopping_on_signals(), _group(Place(index, count, index, count), store, gpu=gpu):
            work()
    except (UserError, Stopped) as mistake:
        error = mistake
    except Exception as problem:  # noqa: BLE001 - raised on the other side
        trace = f"in process {index} of {count}:\n{traceback.format_exc()}"
        error = LostProcessError.here() if _is_broken_group(problem) else RuntimeError(trace)
    else:
        return
    first = _is_first(store)
    if first:
        failures.put(error)
    _leave(getattr(error, "status", 1), 0.0 if first else _LAST_WORDS)


@contextmanager
def _group(place: Place, store: Store, *, gpu: bool) -> Iterator[None]:
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


def _is_broken_group(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _BROKEN_GROUP)


def _is_first(store: Store) -> bool:
    """Whether no other process has failed before; also false where the store has gone with its host."""
    try:
        return store.add("failures", 1) == 1
    except RuntimeError:
        return False


def _leave(status: int = 1, pause: float = 0.0) -> NoReturn:
    """Ends this process without waiting for a group that is broken."""
    sys.stdout.flush()
    time.sleep(pause)
    os._exit(status)


def _end(started: ProcessContext) -> None:
    """Lets the processes stop in their own time, unless that takes too long."""
    for process in started.processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in started.processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
