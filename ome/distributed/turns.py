"""A queue of work items from which processes take one after the other, so that none is idle."""

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

from ome.distributed.collectives import world_size

_numbers: Final = count()


class Turns:
    """Iterates over the indices 0 .. count - 1, each of which is returned in one process only.

    Every process must create its `Turns` in the same order and with the same counts.

    Args:
        count: Number of work items.
    """

    def __init__(self, count: int) -> None:
        self._count, self._name = count, f"turns_{next(_numbers)}"
        self._counts: Counter[str] = Counter()  # if there is only one process

    def __iter__(self) -> Iterator[int]:
        while (index := self.add("taken") - 1) < self._count:
            yield index

    def add(self, what: str, number: int = 1) -> int:
        """Adds to a counter that all processes share.

        Args:
            what: Name of the counter.
            number: The number to add.

        Returns:
            The new value of the counter.
        """
        if world_size() == 1:
            self._counts[what] += number
            return self._counts[what]
        group: Any = sys.modules["torch.distributed"]
        store = group.distributed_c10d._get_default_store()  # noqa: SLF001 - shared by all processes
        return int(store.add(f"{self._name}_{what}", number))
