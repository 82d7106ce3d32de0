"""What stands in the procedural town: streets, houses, trees, cars, and the districts that they make up."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.data.town_canvas import (
    BUILDING,
    CAR,
    CLUTTER,
    IMPERVIOUS,
    LOW_VEGETATION,
    METRE,
    TREE,
    Array,
    Canvas,
    Patch,
)

STREET: Final = 4.5 * METRE
"""Half the width of a street with its pavements."""

ROOFS: Final = (
    (146, 84, 66, 120),
    (128, 78, 62, 105),
    (160, 104, 82, 130),
    (118, 118, 122, 112),
    (76, 76, 82, 78),
    (196, 194, 188, 170),
)
LACQUERS: Final = (
    (225, 226, 228, 205),
    (38, 38, 42, 45),
    (150, 153, 158, 140),
    (150, 32, 34, 120),
    (40, 62, 130, 95),
    (92, 95, 100, 90),
)
CROWNS: Final = ((48, 76, 36, 150), (62, 88, 40, 172), (78, 96, 46, 180), (38, 62, 38, 128))
CLUTTERS: Final = ((206, 178, 128, 180), (58, 130, 140, 24), (150, 88, 50, 110), (46, 60, 58, 16))


class Block(NamedTuple):
    """A rectangle between streets: centre and half sides, in the scene's frame."""

    u: float
    v: float
    half_u: float
    half_v: float


class Town:
    """Builds one scene on a canvas.

    Args:
        canvas: The empty scene.
    """

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.rng = canvas.rng
        self.streets: list[Block] = []

    def build(self) -> None:
        """Divides the scene into blocks by streets and gives each block a district of its own."""
        districts: dict[bool, list[Callable[[Block], None]]] = {
            False: [self.terraces, self.car_park, self.square, self.car_park],
            True: [self.forest, self.field, self.forest, self.houses, self.park],
        }
        reach = 0.72 * self.canvas.size
        waiting: dict[bool, list[Callable[[Block], None]]] = {False: [], True: []}
        for block, green in list(self._divide(Block(0, 0, reach, reach))):
            if not waiting[green]:
                waiting[green] = [
                    districts[green][index] for index in self.rng.permutation(len(districts[green]))
                ]
            waiting[green].pop()(block)
        for street in self.streets:
            self._street(street)

    def _divide(self, block: Block, depth: int = 0, *, green: bool = False) -> Iterator[tuple[Block, bool]]:
        """Halves a block again and again; the first cut parts the town from the open country.

        Neighbours of one kind leave many tiles without the classes of the other, as real quarters do: were
        every class in every tile, tags would tell nothing.
        """
        rng = self.rng
        longer = max(block.half_u, block.half_v)
        if longer < 38 * METRE or (depth > 1 and longer < 60 * METRE and rng.random() < 0.4):
            yield block, green
            return
        gap = STREET if rng.random() < (0.1 if green else 0.6) else 0.0
        along_u = block.half_u >= block.half_v
        half = block.half_u if along_u else block.half_v
        cut = rng.uniform(-0.25, 0.25) * half
        country = rng.choice([-1, 1]) if depth == 0 else 0
        for side in (-1, 1):
            part = (half - gap - side * cut) / 2
            centre = cut + side * (part + gap)
            inner = (
                Block(block.u + centre, block.v, part, block.half_v)
                if along_u
                else Block(block.u, block.v + centre, block.half_u, part)
            )
            yield from self._divide(inner, depth + 1, green=green or side == country)
        if gap:
            length = (block.half_v if along_u else block.half_u) + STREET
            self.streets.append(
                Block(block.u + cut, block.v, gap, length)
                if along_u
                else Block(block.u, block.v + cut, length, gap)
            )

    # Ground

    def _ground(self, block: Block, colour: tuple[float, ...], label: int, grain: tuple[float, ...]) -> None:
        """Covers a block; `grain` scales the fine, medium and coarse noise of its texture."""
        patch = self.canvas.patch(block.u, block.v, float(np.hypot(block.half_u, block.half_v)))
        if patch is not None:
            inside = (np.abs(patch.a) <= block.half_u) & (np.abs(patch.b) <= block.half_v)
            self.canvas.fill(patch, inside, self._textured(patch, colour, grain), label)

    def _textured(self, patch: Patch, colour: tuple[float, ...], grain: tuple[float, ...]) -> Array:
        noises = (self.canvas.fine, self.canvas.medium, self.canvas.coarse)
        change = sum(weight * noise[patch.window] for weight, noise in zip(grain, noises, strict=True))
        return np.asarray(colour, dtype=np.float32) * (1 + np.asarray(change, dtype=np.float32)[..., None])

    def _lawn(self, block: Block) -> None:
        dry = self.rng.beta(1.2, 3)
        fresh, parched = np.asarray([92, 118, 66, 172]), np.asarray([152, 146, 98, 150])
        self._ground(block, tuple(fresh * (1 - dry) + parched * dry), LOW_VEGETATION, (0.07, 0.05, 0.08))

    def _pavement(self, block: Block) -> None:
        tone = self.rng.uniform(0.85, 1.15)
        self._ground(block, (148 * tone, 144 * tone, 138 * tone, 132 * tone), IMPERVIOUS, (0.05, 0.02, 0.03))

    def _asphalt(self, block: Block) -> None:
        tone = self.rng.uniform(0.85, 1.2)
        self._ground(block, (92 * tone, 92 * tone, 96 * tone, 84 * tone), IMPERVIOUS, (0.05, 0.03, 0.06))

    def _paint(self, block: Block) -> None:
        self._ground(block, (205, 205, 200, 180), IMPERVIOUS, (0.05, 0.03, 0.0))

    def _street(self, street: Block) -> None:
        along_u = street.half_u > street.half_v
        kerb = 1.6 * METRE
        self._pavement(street)
        lane = (
            street._replace(half_v=street.half_v - kerb)
            if along_u
            else street._replace(half_u=street.half_u - kerb)
        )
        self._asphalt(lane)
        length = street.half_u if along_u else street.half_v
        busy = self.rng.choice([0.0, 0.3, 0.6])
        for offset in np.arange(-length, length, 6 * METRE):
            at = offset + self.rng.uniform(-3, 3)
            self._paint(self._on(street, at, 0.0, 5.0, 0.7))
            for side in (-1, 1):
                if self.rng.random() < busy:
                    place = self._on(street, at + 8, side * 1.9 * METRE, 0, 0)
                    self._car(place.u, place.v, 0.0 if along_u else np.pi / 2)

    @staticmethod
    def _on(street: Block, along: float, across: float, half_along: float, half_across: float) -> Block:
        if street.half_u > street.half_v:
            return Block(street.u + along, street.v + across, half_along, half_across)
        return Block(street.u + across, street.v + along, half_across, half_along)

    # Objects

    def _building(self, place: Block, storeys: float, *, flat: bool) -> None:
        """A house with a gabled or a flat roof; its shadow follows from its height."""
        rng = self.rng
        patch = self.canvas.patch(place.u, place.v, float(np.hypot(place.half_u, place.half_v)))
        if patch is None:
            return
        a, b = (patch.a, patch.b) if place.half_u >= place.half_v else (patch.b, patch.a)
        half_a, half_b = max(place[2:]), min(place[2:])
        inside = (np.abs(a) <= half_a) & (np.abs(b) <= half_b)
        roof = ROOFS[rng.integers(3, 6) if flat else rng.integers(0, 5)]
        colour = self._textured(patch, tuple(np.asarray(roof) * rng.uniform(0.88, 1.12)), (0.05, 0.03, 0.03))
        eaves = storeys * 3 * METRE
        if flat:
            parapet = (np.abs(a) > half_a - 2) | (np.abs(b) > half_b - 2)
            colour[parapet] *= 1.18
            self.canvas.fill(patch, inside, colour, BUILDING, eaves)
            for _ in range(rng.integers(0, 5)):
                u, v = (
                    place.u + rng.uniform(-0.7, 0.7) * place.half_u,
                    place.v + rng.uniform(-0.7, 0.7) * place.half_v,
                )
                self._box(
                    Block(u, v, rng.uniform(3, 7), rng.uniform(3, 7)),
                    (150, 150, 150, 140),
                    BUILDING,
                    eaves + 6,
                )
            return
        colour *= (1 + 0.05 * np.sign(np.sin(b * 2.1)))[..., None]
        self.canvas.fill(patch, inside, colour, BUILDING, eaves + 0.7 * (half_b - np.abs(b)))
        if rng.random() < 0.6:
            spot = Block(place.u + rng.uniform(-0.4, 0.4) * place.half_u, place.v + 3, 2.0, 2.0)
            self._box(spot, (120, 88, 78, 100), BUILDING, eaves + 0.7 * half_b + 5)

    def _box(self, place: Block, colour: tuple[float, ...], label: int, height: float) -> None:
        patch = self.canvas.patch(place.u, place.v, place.half_u + place.half_v)
        if patch is not None:
            inside = (np.abs(patch.a) <= place.half_u) & (np.abs(patch.b) <= place.half_v)
            self.canvas.fill(patch, inside, self._textured(patch, colour, (0.05, 0.03, 0.0)), label, height)

    def _tree(self, u: float, v: float, radius: float) -> None:
        """A crown: a lumpy dome with a wavy outline."""
        rng = self.rng
        patch = self.canvas.patch(u, v, 1.3 * radius)
        if patch is None or min(patch.a.shape) < 2:
            return
        bearing = np.arctan2(patch.b, patch.a)
        wave = sum(
            rng.uniform(0, 0.09) * np.sin(k * bearing + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5, 7)
        )
        lumps = np.roll(self.canvas.medium, tuple(rng.integers(0, self.canvas.size, 2)), (0, 1))[patch.window]
        fine = self.canvas.fine[patch.window]
        distance = np.hypot(patch.a, patch.b) / (radius * (1 + wave + 0.06 * lumps))
        inside = distance <= 1
        dome = np.sqrt(np.clip(1 - distance**2, 0, 1))
        relief = radius * (0.9 + 0.8 * dome) + (2.2 * lumps + 1.3 * fine) * (0.4 + 0.6 * dome)
        leaf = np.asarray(CROWNS[rng.integers(len(CROWNS))]) * rng.uniform(0.85, 1.15)
        colour = leaf * (1 + 0.12 * fine + 0.08 * lumps)[..., None]
        self.canvas.fill(patch, inside, np.asarray(colour, np.float32), TREE, np.asarray(relief, np.float32))

    def _car(self, u: float, v: float, angle: float) -> None:
        rng = self.rng
        length, width = rng.uniform(2.0, 2.4) * METRE, rng.uniform(0.85, 1.0) * METRE
        patch = self.canvas.patch(u, v, length + 2, angle + rng.normal(0, 0.03))
        if patch is None or min(patch.a.shape) < 2:
            return
        a, b = np.abs(patch.a), np.abs(patch.b)
        inside = (a <= length) & (b <= width) & (a + b <= length + width - 1.2)
        if (self.canvas.label[patch.window][inside] != IMPERVIOUS).any():
            return
        lacquer = np.asarray(LACQUERS[rng.integers(len(LACQUERS))], np.float32) * rng.uniform(0.9, 1.1)
        colour = np.broadcast_to(lacquer, (*inside.shape, 4)).astype(np.float32)
        glass = (np.abs(patch.a - 0.32 * length) < 1.4) | (np.abs(patch.a + 0.62 * length) < 1.2)
        colour[glass & (b < width - 0.8)] = (46, 52, 60, 40)
        self.canvas.fill(patch, inside, colour, CAR, 1.5 * METRE)

    def _clutter(self, u: float, v: float) -> None:
        """A heap of sand, a pool, a container: on open ground only."""
        colour = CLUTTERS[self.rng.integers(len(CLUTTERS))]
        place = Block(u, v, self.rng.uniform(6, 16), self.rng.uniform(6, 12))
        patch = self.canvas.patch(u, v, 1.0)
        if patch is not None and np.isin(self.canvas.label[patch.window], (IMPERVIOUS, LOW_VEGETATION)).all():
            self._box(place, colour, CLUTTER, self.rng.choice([0.0, 4.0]))

    def _within(self, block: Block, margin: float = 0.0) -> tuple[float, float]:
        half_u, half_v = max(block.half_u - margin, 1), max(block.half_v - margin, 1)
        return block.u + self.rng.uniform(-half_u, half_u), block.v + self.rng.uniform(-half_v, half_v)

    # Districts

    def terraces(self, block: Block) -> None:
        """Rows of town houses around paved or green courts."""
        rng = self.rng
        (self._pavement if rng.random() < 0.8 else self._lawn)(block)
        deep = rng.uniform(5.5, 7) * METRE
        gap = rng.uniform(8, 14) * METRE
        for v in np.arange(block.v - block.half_v + deep + 8, block.v + block.half_v - deep, 2 * deep + gap):
            u = block.u - block.half_u + 10
            while u < block.u + block.half_u - 60:
                length = min(rng.uniform(9, 20) * METRE, (block.u + block.half_u - 8 - u) / 2)
                self._building(
                    Block(u + length, float(v), length, deep), rng.uniform(2.5, 4.5), flat=rng.random() < 0.4
                )
                u += 2 * length + (0 if rng.random() < 0.6 else rng.uniform(20, 50))
            for _ in range(rng.integers(0, 3)):
                self._tree(
                    block.u + rng.uniform(-1, 1) * block.half_u,
                    float(v) + deep + gap / 2,
                    rng.uniform(11, 18),
                )
        if rng.random() < 0.5:
            self._clutter(*self._within(block, 20))

    def square(self, block: Block) -> None:
        """A wide paved place with a large building and a few trees."""
        rng = self.rng
        self._pavement(block)
        if rng.random() < 0.7:
            u, v = self._within(block, 110)
            self._building(
                Block(u, v, rng.uniform(50, 95), rng.uniform(40, 60)),
                rng.uniform(2, 4),
                flat=rng.random() < 0.5,
            )
        if rng.random() < 0.4:
            u, v = self._within(block, 20)
            for _ in range(rng.integers(3, 8)):
                self._tree(u + rng.normal(0, 24), v + rng.normal(0, 24), rng.uniform(13, 20))
        if rng.random() < 0.5:
            self._clutter(*self._within(block, 20))

    def houses(self, block: Block) -> None:
        """Detached houses in gardens."""
        rng = self.rng
        self._lawn(block)
        plot = rng.uniform(25, 31) * METRE
        for u in np.arange(block.u - block.half_u + plot / 2, block.u + block.half_u - plot / 3, plot):
            for v in np.arange(block.v - block.half_v + plot / 2, block.v + block.half_v - plot / 3, plot):
                self._garden(Block(float(u), float(v), plot / 2, plot / 2))

    def _garden(self, plot: Block) -> None:
        rng = self.rng
        u, v = plot.u + rng.uniform(-12, 12), plot.v + rng.uniform(-12, 12)
        house = Block(u, v, rng.uniform(6, 9) * METRE, rng.uniform(5, 7.5) * METRE)
        if rng.random() < 0.3:
            self._pavement(Block(u + house.half_u + 12, v - 8, 12, 16))
            if rng.random() < 0.6:
                self._car(u + house.half_u + 12, v - 8, 0.0)
        if rng.random() < 0.12:
            self._clutter(plot.u - 0.7 * plot.half_u, plot.v + 0.7 * plot.half_v)
        self._building(house, rng.uniform(1.3, 2.3), flat=rng.random() < 0.2)
        if rng.random() < 0.45:
            corner = rng.choice([-0.8, 0.8], 2)
            for _ in range(rng.integers(2, 5)):
                away = rng.uniform(-16, 16, 2)
                self._tree(
                    plot.u + corner[0] * plot.half_u + away[0],
                    plot.v + corner[1] * plot.half_v + away[1],
                    rng.uniform(11, 19),
                )

    def park(self, block: Block) -> None:
        """Lawns with groups of trees, sometimes a path."""
        rng = self.rng
        self._lawn(block)
        if rng.random() < 0.4:
            self._pavement(
                block._replace(v=block.v + rng.uniform(-0.5, 0.5) * block.half_v, half_v=1.6 * METRE)
            )
        for _ in range(max(1, int(block.half_u * block.half_v / 9000))):
            u, v = self._within(block, 30)
            for _ in range(rng.integers(3, 10)):
                self._tree(u + rng.normal(0, 26), v + rng.normal(0, 26), rng.uniform(12, 24))

    def forest(self, block: Block) -> None:
        """A closed canopy, sometimes with a clearing; the ground between the crowns counts as trees too."""
        rng = self.rng
        self._ground(block, (34, 46, 26, 96), TREE, (0.2, 0.15, 0.1))
        for _ in range(int(block.half_u * block.half_v / 70)):
            self._tree(*self._within(block), rng.uniform(10, 21))
        if rng.random() < 0.4:
            u, v = self._within(block, 80)
            self._lawn(Block(u, v, *rng.uniform(25, 45, 2)))
            for _ in range(12):
                turn = rng.uniform(0, 2 * np.pi)
                self._tree(u + 45 * np.cos(turn), v + 45 * np.sin(turn), rng.uniform(10, 18))

    def field(self, block: Block) -> None:
        """A meadow or a crop in rows."""
        rng = self.rng
        self._lawn(block)
        if rng.random() < 0.6:
            width = rng.uniform(5, 14)
            for u in np.arange(block.u - block.half_u + width, block.u + block.half_u, 2 * width):
                tone = rng.uniform(0.9, 1.1)
                row = Block(float(u), block.v, width / 2, block.half_v)
                self._ground(
                    row, (118 * tone, 126 * tone, 74 * tone, 165 * tone), LOW_VEGETATION, (0.08, 0.05, 0.06)
                )
        if rng.random() < 0.4:
            for _ in range(rng.integers(2, 6)):
                u, v = block.u - block.half_u + 20, block.v
                self._tree(u + rng.normal(0, 14), v + rng.normal(0, 30), rng.uniform(14, 22))

    def car_park(self, block: Block) -> None:
        """Rows of parking bays, more or less full, and often a hall."""
        rng = self.rng
        self._asphalt(block)
        hall = rng.random() < 0.6
        lot = block
        if hall:
            half = 0.32 * block.half_v
            self._building(
                Block(block.u, block.v - block.half_v + half + 8, 0.85 * block.half_u, half),
                rng.uniform(1.8, 3),
                flat=True,
            )
            lot = Block(block.u, block.v + half + 8, block.half_u, block.half_v - half - 8)
        filled = rng.choice([0.0, 0.5, 0.8])
        for v in np.arange(lot.v - lot.half_v + 24, lot.v + lot.half_v - 16, 15 * METRE):
            for u in np.arange(lot.u - lot.half_u + 16, lot.u + lot.half_u - 12, 2.7 * METRE):
                for side in (-1, 1):
                    self._paint(Block(float(u) - 5.4, float(v) + side * 10.5, 0.6, 9.5))
                    if rng.random() < filled:
                        self._car(float(u), float(v) + side * 11, np.pi / 2)
        if rng.random() < 0.6:
            self._clutter(*self._within(lot, 20))


def draw_scene(
    rng: np.random.Generator, size: int, sun: float, elevation: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draws one scene of the town.

    Args:
        rng: Decides the scene.
        size: Side of the scene in pixels.
        sun: Direction in which shadows fall, in radians from the columns towards the rows.
        elevation: Tangent of the sun's height over the horizon.

    Returns:
        The pixels (S, S, 4) uint8 (red, green, blue, near infrared) and the classes (S, S) uint8.
    """
    canvas = Canvas(rng, size, sun, elevation)
    Town(canvas).build()
    return canvas.render(), canvas.label
