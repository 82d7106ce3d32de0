"""Work items that processes take one after the other, so that none waits for a slower one."""

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

from ome.distributed.collectives import world_size

_numbers: Final = count()


class Turns:
    """Indices 0, 1, ... of pieces of work, each given to one process.

    Every process must make the same turns in the same order.

    Args:
        count: Number of pieces.
    """

    def __init__(self, count: int) -> None:
        self._count, self._name = count, f"turns_{next(_numbers)}"
        self._own: Counter[str] = Counter()

    def __iter__(self) -> Iterator[int]:
        while (index := self.add("taken") - 1) < self._count:
            yield index

    def add(self, what: str, number: int = 1) -> int:
        """Counts over all processes.

        Args:
            what: What is counted.
            number: How many more.

        Returns:
            The number so far.
        """
        if world_size() == 1:
            self._own[what] += number
            return self._own[what]
        group: Any = sys.modules["torch.distributed"]
        store = group.distributed_c10d._get_default_store()  # noqa: SLF001 - the one that every process has
        return int(store.add(f"{self._name}_{what}", number))
