"""Limits that an annotation puts on a setting: `Annotated[float, AtLeast(0), "weight of the loss"]`."""

from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable


@runtime_checkable
class Limit(Protocol):
    """What a value of the right type has to fulfil beyond it."""

    def allows(self, value: Any) -> bool:  # noqa: ANN401 - of the annotated type
        """Whether the value is within the limit."""
        ...

    def words(self, noun: str) -> str:
        """Says the limit of a noun such as `a number`."""
        ...


@dataclass(frozen=True)
class AtLeast:
    """The least value of a number."""

    low: float

    def allows(self, value: float) -> bool:
        """See `Limit`."""
        return value >= self.low

    def words(self, noun: str) -> str:
        """See `Limit`."""
        return f"{noun} of at least {self.low:g}"


@dataclass(frozen=True)
class Above:
    """What a number has to be larger than."""

    low: float

    def allows(self, value: float) -> bool:
        """See `Limit`."""
        return value > self.low

    def words(self, noun: str) -> str:
        """See `Limit`."""
        return f"{noun} above {self.low:g}"


@dataclass(frozen=True)
class Between:
    """The range of a number, with both ends unless one is open."""

    low: float
    high: float
    open_start: bool = False
    open_end: bool = False

    def allows(self, value: float) -> bool:
        """See `Limit`."""
        above = value > self.low if self.open_start else value >= self.low
        return above and (value < self.high if self.open_end else value <= self.high)

    def words(self, noun: str) -> str:
        """See `Limit`."""
        if not (self.open_start or self.open_end):
            return f"{noun} from {self.low:g} to {self.high:g}"
        start = f"above {self.low:g}" if self.open_start else f"of at least {self.low:g}"
        end = f"below {self.high:g}" if self.open_end else f"at most {self.high:g}"
        return f"{noun} {start} and {end}"


@dataclass(frozen=True)
class Length:
    """How many values a list has."""

    count: int

    def allows(self, value: list[Any]) -> bool:
        """See `Limit`."""
        return len(value) == self.count

    def words(self, noun: str) -> str:
        """See `Limit`."""
        return noun.replace("a list of", f"a list of {self.count}", 1)


@dataclass(frozen=True)
class NotEmpty:
    """A list of at least one value."""

    def allows(self, value: list[Any]) -> bool:
        """See `Limit`."""
        return bool(value)

    def words(self, noun: str) -> str:
        """See `Limit`."""
        return noun.replace("a list of", "a list of one or more", 1)


@dataclass(frozen=True)
class Ordered:
    """A list whose values do not fall."""

    def allows(self, value: list[float]) -> bool:
        """See `Limit`."""
        return value == sorted(value)

    def words(self, noun: str) -> str:
        """See `Limit`."""
        return f"{noun}, the smallest first"


@dataclass(frozen=True)
class LastAtMost:
    """A list whose last number has an upper limit of its own."""

    high: float

    def allows(self, value: list[float]) -> bool:
        """See `Limit`."""
        return value[-1] <= self.high

    def words(self, noun: str) -> str:
        """See `Limit`."""
        return f"{noun}, the last at most {self.high:g}"


@dataclass(frozen=True)
class EvenNan:
    """A number that may be nan or infinite, as no other setting may."""

    def allows(self, value: float) -> bool:
        """See `Limit`."""
        del value
        return True

    def words(self, noun: str) -> str:
        """See `Limit`."""
        return noun


@dataclass(frozen=True)
class NotANumber:
    """Text that does not look like a number."""

    def allows(self, value: str | float) -> bool:
        """See `Limit`."""
        return isinstance(value, str)

    def words(self, noun: str) -> str:
        """See `Limit`."""
        return noun


Count = Annotated[int, AtLeast(1)]
Natural = Annotated[int, AtLeast(0)]
Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]
Fraction = Annotated[float, Between(0, 1)]
FractionAboveZero = Annotated[float, Between(0, 1, open_start=True)]
FractionBelowOne = Annotated[float, Between(0, 1, open_end=True)]
Byte = Annotated[int, Between(0, 255)]
Colour = Annotated[list[Byte], Length(3)]
FileOrName = Annotated[str, NotANumber()]
ScaleRange = Annotated[list[Positive], Length(2), Ordered()]
Positives = Annotated[list[Positive], NotEmpty()]
