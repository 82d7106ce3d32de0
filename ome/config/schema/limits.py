"""Limits that an annotation puts on a setting: `Annotated[float, at_least(0), "weight of the loss"]`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Limit:
    """A condition on a value that already has the right type.

    Attributes:
        allows: Returns whether the value meets the condition.
        words: Adds the condition to a noun such as `a number`.
    """

    allows: Callable[[Any], bool]
    words: Callable[[str], str] = lambda noun: noun


def at_least(low: float) -> Limit:
    """A number of at least `low`."""
    return Limit(lambda value: value >= low, lambda noun: f"{noun} of at least {low:g}")


def above(low: float) -> Limit:
    """A number larger than `low`."""
    return Limit(lambda value: value > low, lambda noun: f"{noun} above {low:g}")


def below(high: float) -> Limit:
    """A number smaller than `high`, which also has a lower limit."""
    return Limit(lambda value: value < high, lambda noun: f"{noun} and below {high:g}")


def at_most(high: float) -> Limit:
    """A number of at most `high`, which also has a lower limit."""
    return Limit(lambda value: value <= high, lambda noun: f"{noun} and at most {high:g}")


def between(low: float, high: float) -> Limit:
    """A number in the closed range from `low` to `high`."""
    return Limit(
        lambda value: low <= value <= high, lambda noun: f"{noun} from {_shown(low)} to {_shown(high)}"
    )


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def length(count: int) -> Limit:
    """A list of `count` values."""
    return Limit(
        lambda value: len(value) == count, lambda noun: noun.replace("a list of", f"a list of {count}", 1)
    )


def last_at_most(high: float) -> Limit:
    """A list whose last number is at most `high`."""
    return Limit(lambda value: value[-1] <= high, lambda noun: f"{noun}, the last at most {high:g}")


NOT_EMPTY = Limit(bool, lambda noun: noun.replace("a list of", "a list of one or more", 1))
SORTED = Limit(lambda value: value == sorted(value), lambda noun: f"{noun}, the smallest first")
NOT_A_NUMBER = Limit(lambda value: isinstance(value, str))
"""Text that does not look like a number."""
NAN_ALLOWED = Limit(lambda _: True)
"""A number that may also be nan or infinite."""

Count = Annotated[int, at_least(1)]
Natural = Annotated[int, at_least(0)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Fraction = Annotated[float, between(0, 1)]
FractionAboveZero = Annotated[float, above(0), at_most(1)]
FractionBelowOne = Annotated[float, at_least(0), below(1)]
Byte = Annotated[int, between(0, 255)]
Colour = Annotated[list[Byte], length(3)]
FileOrName = Annotated[str, NOT_A_NUMBER]
Seed = Annotated[int, between(0, 2**32 - 1)]
Scale = Annotated[float, between(0.05, 16)]
"""A factor by which images are resized: beyond it nothing is left of a tile, or it fits into no memory."""
ScaleRange = Annotated[list[Scale], length(2), SORTED]
Scales = Annotated[list[Scale], NOT_EMPTY]
Positives = Annotated[list[Positive], NOT_EMPTY]
