"""Tasks in several threads, whose waiting tasks do not fill the memory."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

IN_MEMORY: Final = 64
"""Largest number of tiles that are loaded or computed and not yet processed."""

BYTES: Final = 1 << 24
"""Bytes of a task's arrays that count as those of one tile."""

Submit = Callable[[Callable[[], None], int], None]
"""`submit(task, tiles)` has a thread run a task of so many tiles; it waits while too many others do."""


@contextmanager
def tasks_in(threads: int) -> Iterator[Submit]:
    """Gives a function that runs tasks in threads; all have ended when the block ends.

    An error of a task is raised by a later call or at the end of the block. After an error in the block or a
    signal no task begins, only those that are running end.
    """
    running: deque[Future[None]] = deque()
    with ThreadPoolExecutor(threads) as pool:

        def submit(task: Callable[[], None], tiles: int) -> None:
            running.append(pool.submit(task))
            if len(running) * tiles >= IN_MEMORY:
                running.popleft().result()

        try:
            yield submit
            for done in running:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
