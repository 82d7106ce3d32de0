"""Reading ahead: what comes next is made in a thread while what is there is worked on."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

_END: Final = object()


def ahead(items: Iterator[T], depth: int = 2) -> Generator[T]:
    """Gives the items of an iteration that runs in a thread of its own.

    Args:
        items: What it raises is raised where its items are taken.
        depth: Items that are made before they are taken.

    Yields:
        The items, in order.
    """
    with ThreadPoolExecutor(1, "reading-ahead") as reader:
        waiting = deque(reader.submit(next, items, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(reader.submit(next, items, _END))
            yield item  # type: ignore[misc]  # the sentinel is gone
