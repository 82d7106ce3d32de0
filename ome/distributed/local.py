"""Starts the processes of a distributed run on this machine."""

import logging
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any

from torch._C._distributed_c10d import TCPStore
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from ome.distributed.processes import (
    SECONDS_TO_REPORT,
    LostProcessError,
    exit_at_once,
    group,
    is_broken_group,
    is_first_failure,
)
from ome.distributed.rank import Place
from ome.distributed.signals import SIGNALS, Stopped, stopping_on_signals
from ome.errors import UserError

_SECONDS_TO_STOP = 300.0
"""Time in which processes that were told to stop may write a checkpoint."""


def run_in_processes(count: int, work: Callable[[], object], *, gpu: bool) -> None:
    """Does the work in new processes on this machine; when one of them fails, the others are ended.

    Args:
        count: Number of processes.
        work: The function that each process calls within their group; it must be picklable.
        gpu: Whether each process uses a GPU.

    Raises:
        UserError: A process raised it, or was killed.
        Stopped: This process was told to stop, and has stopped the others.
    """
    # Otherwise it would log that it terminates the other processes.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    # In this process, so that the store still exists after any of the others has failed.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    failures = get_context("spawn").SimpleQueue()
    started: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        _run, (count, store.port, gpu, work, failures), count, join=False, start_method="spawn"
    )
    try:
        while not started.join():
            pass
    except (KeyboardInterrupt, Stopped):
        _terminate(started)
        raise
    except ProcessExitedException:
        exits = [process.exitcode or 0 for process in started.processes]
        reason = why_ended(exits, None if failures.empty() else failures.get())
        if reason is None:
            raise
        raise reason from None


def why_ended(exits: Sequence[int], reported: BaseException | None) -> BaseException | None:
    """The error to raise after processes have failed.

    Args:
        exits: Exit codes of the processes; the negative number of the signal that ended a process.
        reported: The first error that a process reported. A process that was killed reports none; then the
            others may report that they were stopped, or lost the connection to it.

    Returns:
        The error of the process that failed first; None if it is unknown.
    """
    signals = [-status for status in exits if status < 0]
    killers = [number for number in signals if number not in SIGNALS]
    if signals and not killers and reported is None:
        return Stopped(signals[0])  # it was told to stop while it imported its modules
    if not killers or not (reported is None or isinstance(reported, Stopped | LostProcessError)):
        return reported
    index, name = exits.index(-killers[0]), signal.Signals(killers[0]).name
    why = ", probably out of memory" if killers[0] == signal.SIGKILL else ""
    return UserError(
        f"process {index} of {len(exits)} was killed ({name}){why}; the same command resumes where it stopped"
    )


def _run(index: int, count: int, port: int, gpu: bool, work: Callable[[], object], failures: Any) -> None:  # noqa: ANN401
    """Runs in each process that `run_in_processes` starts, and reports an error to that function."""
    store = TCPStore("127.0.0.1", port, is_master=False)
    error: BaseException
    try:
        with stopping_on_signals(), group(Place(index, count, index, count), store, gpu=gpu):
            work()
    except (UserError, Stopped) as raised:
        error = raised
    except Exception as raised:  # noqa: BLE001 - raised by `run_in_processes`
        trace = f"in process {index} of {count}:\n{traceback.format_exc()}"
        error = LostProcessError.here() if is_broken_group(raised) else RuntimeError(trace)
    else:
        return
    first = is_first_failure(store)
    if first:
        failures.put(error)
    exit_at_once(getattr(error, "status", 1), 0.0 if first else SECONDS_TO_REPORT)


def _terminate(started: ProcessContext) -> None:
    """Tells the processes to stop, and kills those that take longer than `_SECONDS_TO_STOP`."""
    for process in started.processes:
        process.terminate()
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for process in started.processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
