"""Class colours: converts coloured reference images to class-index masks and back."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.data.names import check_class, check_classes
from ome.errors import UserError
from ome.geo.grid import RGB
from ome.ignore import IGNORE

MAX_LISTED: Final = 20
"""Largest number of unknown colours that are listed; the others are only counted."""

DISTINCT: Final[tuple[RGB, ...]] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
    *((51, 34, 136), (136, 204, 238), (68, 170, 153), (17, 119, 51), (153, 153, 51)),
    *((221, 204, 119), (204, 102, 119), (136, 34, 85), (170, 68, 153)),
)
"""Default colours of classes: Okabe and Ito's seven (without black, which means no class), which are
distinguishable with any kind of colour blindness, then Paul Tol's scheme "muted"."""

SHADES: Final = (1.0, 0.7, 0.45)
"""Brightness factors at which `DISTINCT` is repeated for further classes."""

_UNKNOWN: Final = 254


class Encoded(NamedTuple):
    """A coloured reference turned into class indices.

    Attributes:
        mask: (H, W) uint8, the class index or `IGNORE`.
        unknown: Pixels of each colour that the palette does not name; they are `IGNORE` in `mask`, or 0 with
            `Palette.unknown_as_first`.
    """

    mask: NDArray[np.uint8]
    unknown: dict[RGB, int]


@dataclass(frozen=True)
class UnknownColours:
    """The colours that a palette does not name, the most frequent first.

    Attributes:
        counts: At most `MAX_LISTED` colours with their pixels.
        rest: Pixels of all further colours together.
    """

    counts: tuple[tuple[RGB, int], ...] = ()
    rest: int = 0

    @property
    def pixels(self) -> int:
        """Pixels of unknown colour, listed or not."""
        return sum(count for _, count in self.counts) + self.rest

    @classmethod
    def from_counts(cls, counts: Mapping[RGB, int], rest: int = 0) -> "UnknownColours":
        """Keeps the most frequent colours and sums the others; equal counts are ordered by colour."""
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls(tuple(ordered[:MAX_LISTED]), rest + sum(count for _, count in ordered[MAX_LISTED:]))

    @classmethod
    def merge(cls, parts: Iterable["UnknownColours"]) -> "UnknownColours":
        """Sums several lists; colours in the rest of one list stay in the rest."""
        counts, rest = Counter[RGB](), 0
        for part in parts:
            counts.update(dict(part.counts))
            rest += part.rest
        return cls.from_counts(counts, rest)

    def __str__(self) -> str:
        listed = [f"{r},{g},{b} ({count} px)" for (r, g, b), count in self.counts]
        return ", ".join([*listed, f"others ({self.rest} px)"] if self.rest else listed)


@dataclass(frozen=True)
class Palette:
    """The colours of a dataset's reference images.

    Attributes:
        classes: Colour of each class; the order gives the class index.
        ignored: Colours that are known but neither trained nor scored (clutter, eroded boundaries).
        unknown_as_first: Take colours that are not known for the first class instead of ignoring them.
    """

    classes: dict[str, RGB]
    ignored: dict[str, RGB]
    unknown_as_first: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) < _UNKNOWN:
            raise UserError(
                f"dataset.classes names {len(self.classes)} classes: 1 to {_UNKNOWN - 1} are possible"
            )
        for name in self.classes:
            check_class(name, "dataset.classes: the class")
        check_classes(dict.fromkeys(self.classes, 0), "dataset.classes", typed=True)
        names: dict[RGB, str] = {}
        for name, colour in [*self.classes.items(), *self.ignored.items()]:
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise UserError(
                    f"colour of {name} is {colour}: give three values from 0 to 255 (red, green, blue)"
                )
            if colour in names:
                raise UserError(f"{name} and {names[colour]} have the same colour {colour}")
            names[colour] = name
        if both := set(self.classes) & set(self.ignored):
            raise UserError(f"{', '.join(sorted(both))} is in dataset.classes and dataset.ignored: keep one")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in index order."""
        return tuple(self.classes)

    @property
    def num_classes(self) -> int:
        """Number of classes C; the indices are 0..C-1."""
        return len(self.classes)

    def encode(self, rgb: NDArray[np.uint8]) -> Encoded:
        """Turns colours into class indices; only exact matches count.

        Args:
            rgb: (H, W, 3) uint8.

        Returns:
            The (H, W) uint8 mask and the pixels of each colour that the palette does not name.
        """
        packed = rgb[..., 0].astype(np.uint32)
        for channel in (1, 2):
            packed <<= 8
            packed |= rgb[..., channel]
        mask = _lookup(tuple(self.classes.values()), tuple(self.ignored.values()))[packed]
        is_unknown = mask == _UNKNOWN
        codes, counts = np.unique(packed[is_unknown], return_counts=True)
        mask[is_unknown] = 0 if self.unknown_as_first else IGNORE
        unknown = {
            (code >> 16, code >> 8 & 255, code & 255): count
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
        }
        return Encoded(mask, unknown)

    def decode(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Paints class indices (H, W) uint8 as colours (H, W, 3) uint8; all other values become black."""
        return np.asarray(self.flat(), dtype=np.uint8).reshape(256, 3)[mask]

    def flat(self) -> list[int]:
        """The 768 values of an indexed image's palette: class colours first, black elsewhere."""
        values = [value for colour in self.classes.values() for value in colour]
        return values + [0] * (768 - len(values))


def distinct_colours(names: Sequence[str]) -> dict[str, RGB]:
    """Gives each class the next colour of `DISTINCT`.

    Raises:
        UserError: There are more classes than colours.
    """
    colours = [
        (round(r * shade), round(g * shade), round(b * shade)) for shade in SHADES for r, g, b in DISTINCT
    ]
    if len(names) > len(colours):
        raise UserError(
            f"dataset.classes: {len(names)} classes are more than the {len(colours)} default colours: "
            "give them by 'dataset.classes={NAME: [RED, GREEN, BLUE], ...}'"
        )
    return dict(zip(names, colours, strict=False))


def colours_of(value: Mapping[Any, Sequence[int]]) -> dict[str, RGB]:
    """Colours by name, as a configuration or JSON has them."""
    return {str(name): (int(r), int(g), int(b)) for name, (r, g, b) in value.items()}


@lru_cache(maxsize=4)
def _lookup(classes: tuple[RGB, ...], ignored: tuple[RGB, ...]) -> NDArray[np.uint8]:
    """Mask value of each of the 2^24 colours: one gather a pixel, however many classes there are."""
    table = np.full(1 << 24, _UNKNOWN, dtype=np.uint8)
    for r, g, b in ignored:
        table[r << 16 | g << 8 | b] = IGNORE
    for index, (r, g, b) in enumerate(classes):
        table[r << 16 | g << 8 | b] = index
    return table
