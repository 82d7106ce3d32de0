"""Parts of a unit of work that are timed where the whole takes too long, and how long that may be."""

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, NamedTuple

SECONDS: Final = 16.0
"""Seconds for which the units of a plan are timed, all together."""
LEAST: Final = 64
"""Least side of a part of a tile in pixels."""
LEAST_LIMIT: Final = 2.0
"""Least limit of a unit, however slow the earlier ones were."""
GROWTH: Final = 2.25
"""Least growth in pixels from one part to the next: from 64 to 96 pixels a side."""
SLOW: Final = 3.0
"""Seconds of a part, all in all, after which a larger one must be within the limit."""
LIKE: Final = 1.5
"""Later parts are timed whatever the limit, if they are to take no longer than so often the one before."""
FLATTEST: Final = 0.05
"""Least slope of the line of time by pixels, as a fraction of the time of a pixel."""
MOST: Final = 20
"""Largest number of repetitions of a part."""
MULTIPLE: Final = 32
"""The side of a part is a multiple of this, as most encoders need."""


class Timed(NamedTuple):
    """How long a unit of work takes.

    Attributes:
        seconds: Seconds of one unit.
        number: Number of units that were timed; 0 if it was less than one.
    """

    seconds: float
    number: int


class Part(NamedTuple):
    """Tiles that are worked on together, or a part of them: fewer tiles, or smaller ones.

    Attributes:
        tiles: Number of tiles.
        height: Rows of each.
        width: Columns of each.
    """

    tiles: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Pixels of all tiles."""
        return self.tiles * self.height * self.width

    def within(self, pixels: float, few: int) -> "Part":
        """The largest part of no more pixels: whole tiles, or `few` of at least `LEAST` pixels a side."""
        few = min(few, self.tiles)
        count = int(pixels * self.tiles / self.pixels)
        if count >= few:
            return self._replace(tiles=min(count, self.tiles))
        shrunk = math.sqrt(pixels * self.tiles / self.pixels / few)
        height, width = (
            min(side, max(LEAST, int(side * shrunk) // MULTIPLE * MULTIPLE)) for side in self[1:]
        )
        return Part(few, height, width)


class Line:
    """Time by pixels: a straight line through the last two measurements, as not all time is the pixels'."""

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []

    def add(self, pixels: int, seconds: float) -> None:
        """Adds a measurement; of one alone, the time is taken to be proportional to the pixels."""
        self._points.append((pixels, seconds))

    @property
    def is_line(self) -> bool:
        """Whether there are two measurements."""
        return len(self._points) > 1

    @property
    def _slope(self) -> float:
        (before, earlier), (pixels, seconds) = [(0, 0.0), *self._points][-2:]
        proportional = seconds / pixels
        rising = (seconds - earlier) / (pixels - before)
        return min(max(rising, FLATTEST * proportional), proportional)  # either may have been disturbed

    def seconds(self, pixels: int) -> float:
        """Seconds of so many pixels."""
        measured, seconds = self._points[-1]
        return seconds + self._slope * (pixels - measured)

    def pixels(self, seconds: float) -> float:
        """Pixels of so many seconds."""
        measured, spent = self._points[-1]
        return measured + (seconds - spent) / self._slope


def extrapolated(
    measured: Callable[[Part, int], Sequence[float]], whole: Part, few: int, limit: float, start: float = 0.0
) -> Timed:
    """Times ever larger parts of a whole, as far as the seconds allow, and extrapolates to the whole.

    Args:
        measured: Returns the seconds of a part, of which at most so many repetitions are timed.
        whole: The tiles.
        few: Least number of tiles.
        start: Pixels of the smallest part.
        limit: Seconds for all; the two smallest parts are timed whatever they take.
    """
    before, part, line, end = 0.0, whole.within(start, few), Line(), time.perf_counter() + limit
    times = measured(part, 1 if part != whole else MOST)
    line.add(part.pixels, median(times))
    while part != whole:
        started = time.perf_counter()
        goal = max(0.0, line.pixels((end - started) / 2))
        if not line.is_line:
            goal = max(goal, GROWTH * part.pixels)
        elif started - before < SLOW:  # two parts have told how little of the time is the pixels'
            goal = max(goal, line.pixels(LIKE * times[-1]))
        larger = whole.within(goal, few)
        least = GROWTH * part.pixels if line.is_line else part.pixels + 1
        if larger.pixels < min(least, whole.pixels):
            break
        part, before, times = larger, started, measured(larger, MOST if larger == whole else 1)
        line.add(part.pixels, median(times))
    is_some = part[1:] == whole[1:]
    return Timed(line.seconds(whole.pixels) / whole.tiles, part.tiles * len(times) * is_some)


class Allowance:
    """Divides `SECONDS` among units of work; what one leaves goes to the others.

    Args:
        units: Number of units.
    """

    def __init__(self, units: int) -> None:
        self._units = units
        self._end = time.perf_counter() + SECONDS

    def limit(self) -> float:
        """Seconds of the next unit."""
        limit = (self._end - time.perf_counter()) / self._units
        self._units -= 1
        return max(LEAST_LIMIT, limit)
