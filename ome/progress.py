"""Terminal output: tables, and progress of long work as a bar on a terminal or as sparse lines elsewhere."""

import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.markup import escape
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
from rich.table import Table
from rich.text import Text

from ome.errors import one_line

T = TypeVar("T")

_NOT_MARKUP: Final = re.compile(r"(?<!\\)\[(?!(?:/|red|green|yellow|bold|bold red|bold yellow)\])")
"""A bracket that begins none of the program's own styles, as in the name of a file or a class."""


class _Console(Console):
    """A console that prints a text on one line, and takes brackets in names and paths for text."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - rich's
        text = one_line(text)
        if options.get("markup") is not False:
            text = _NOT_MARKUP.sub(r"\\[", text)
        return super().render_str(text, **options)

    def on_broken_pipe(self) -> None:
        """Leaves it to `ome.cli.exits` how the command ends: rich would end it with status 1."""
        raise BrokenPipeError


console = _Console(soft_wrap=True, emoji=False)
"""The console for all output of the program."""

if not console.is_terminal:
    console.width = 120  # a log file: avoids wrapped tables

SECONDS_BETWEEN_LINES = 20.0
"""Seconds between two progress lines in a log file."""


@cache
def say_once(line: str, style: str = "yellow") -> None:
    """Prints plain text once, as a warning by default, e.g. about a table that every stage reads."""
    console.print(line, style=style, markup=False)


def print_table(
    title: str | None,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    texts: int = 1,
    bold: Collection[int] = (),
) -> None:
    """Prints a table of texts, in which brackets are no styles.

    Args:
        title: Title above the table.
        header: Titles of the columns.
        rows: One text per column.
        texts: Number of columns, from the left, that hold texts; the others, numbers, are aligned right.
        bold: Indices of the rows to emphasise.
    """
    table = Table(title=escape(title) if title else None)
    for place, name in enumerate(header):
        # Not cut: settings and paths differ at their ends.
        table.add_column(escape(name), justify="left" if place < texts else "right", overflow="fold")
    for index, row in enumerate(rows):
        table.add_row(*map(escape, row), style="bold" if index in bold else None)
    console.print(table)


def pace(rate: float) -> str:
    """The rate as text: items per second, or seconds per item for slow work."""
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


def duration(seconds: float) -> str:
    """Seconds as text, in their two largest units, e.g. `7 min 35 s`."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


class RateColumn(ProgressColumn):
    """Items per second, averaged over the last 30 seconds."""

    def render(self, task: Task) -> Text:
        """Draws the rate, or a dash before the first item is done."""
        speed = task.finished_speed or task.speed
        return Text(pace(speed) if speed else "-/s", style="progress.data.speed")


class Meter:
    """Counts finished items and shows how many are done, how fast, and how long the rest will take.

    Args:
        description: The work in a few words, e.g. `CRF and uncertainty`.
        total: Number of items.
        done: Items that an earlier, interrupted run already finished.
    """

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        self._description = description
        self._total = total
        self._done = self._start = done
        self._started = self._shown = time.monotonic()
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                RateColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._progress.start()
            self._task = self._progress.add_task(description, total=total, completed=done, note="")

    def rate(self, count: int = 0) -> float:
        """Items per second since the start, including `count` items not yet counted."""
        done = self._done - self._start + count
        return done / max(time.monotonic() - self._started, 1e-9)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Counts `count` more items as done; `note` (e.g. the loss) is shown beside the rate."""
        self._done += count
        if self._progress is not None:
            self._progress.update(self._task, advance=count, note=note)
            return
        now = time.monotonic()
        if now - self._shown >= SECONDS_BETWEEN_LINES or self._done == self._total:
            rate = max(self.rate(), 1e-9)
            left = duration((self._total - self._done) / rate)
            line = f"{self._description}: {self._done}/{self._total}  {pace(rate)}  {left} left  {note}"
            console.print(line.rstrip())
            self._shown = now

    def close(self) -> None:
        """Stops the bar and leaves it as it is."""
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def meter(description: str, total: int, done: int = 0) -> Iterator[Meter]:
    """A `Meter` that is closed when the block ends, also by an error."""
    progress = Meter(description, total, done)
    try:
        yield progress
    finally:
        progress.close()


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yields the items and counts each on a `Meter` once it is done."""
    with meter(description, total) as progress:
        for item in items:
            yield item
            progress.advance()
