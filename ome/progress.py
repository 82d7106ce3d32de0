"""Progress of long work: a bar with rate and time left on a terminal, sparse lines elsewhere."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

console = Console()
"""The terminal that every part of the program writes to."""


class RateColumn(ProgressColumn):
    """Items per second, averaged over the task so far."""

    def render(self, task: Task) -> Text:
        """Draws the rate, or a dash before the first item is done."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "-/s", style="progress.data.speed")


def track(items: Iterable[T], description: str, total: int, *, every: float = 30.0) -> Iterator[T]:
    """Yields the items and shows how many are done, how fast, and how long the rest will take.

    Args:
        items: What is worked through.
        description: The work in a few words, e.g. `CRF and uncertainty`.
        total: Number of items.
        every: Seconds between two lines where the output is not a terminal (a log file).
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield from progress.track(items, total=total, description=description)
        return
    start = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= every or done == total:
            rate = done / max(now - start, 1e-9)
            left = (total - done) / rate
            console.print(f"{description}: {done}/{total}  {rate:.1f}/s  {left:.0f} s left", highlight=False)
            shown = now
