"""Prefetching: a thread computes the next items while the caller works on the current one."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

_END: Final = object()


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T]:
    """Runs an iterator in a thread and yields its items.

    Args:
        items: The iterator; its exceptions are raised in the caller's thread.
        depth: Items that are computed before they are needed.

    Yields:
        The items, in order.
    """
    with ThreadPoolExecutor(1, "prefetch") as reader:
        waiting = deque(reader.submit(next, items, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(reader.submit(next, items, _END))
            yield item  # type: ignore[misc]  # the sentinel is gone
