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

from ome.distributed.processes import LAST_WORDS, LostProcessError, group, is_broken_group, is_first, leave
from ome.distributed.rank import Place
from ome.distributed.signals import SIGNALS, Stopped, stopping_on_signals
from ome.errors import UserError

_GRACE = 300.0
"""Seconds in which processes that were told to stop may write a checkpoint."""


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
    """The error to raise after processes have failed.

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
        with stopping_on_signals(), group(Place(index, count, index, count), store, gpu=gpu):
            work()
    except (UserError, Stopped) as mistake:
        error = mistake
    except Exception as problem:  # noqa: BLE001 - raised on the other side
        trace = f"in process {index} of {count}:\n{traceback.format_exc()}"
        error = LostProcessError.here() if is_broken_group(problem) else RuntimeError(trace)
    else:
        return
    first = is_first(store)
    if first:
        failures.put(error)
    leave(getattr(error, "status", 1), 0.0 if first else LAST_WORDS)


def _end(started: ProcessContext) -> None:
    """Lets the processes stop in their own time, unless that takes too long."""
    for process in started.processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in started.processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
