"""The objects of the procedural town: ground, streets, houses, trees and cars."""

from typing import Final, NamedTuple

import numpy as np

from ome.synthetic.canvas import (
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
from ome.synthetic.colours import CLUTTERS, CROWNS, LACQUERS, ROOFS

STREET: Final = 4.5 * METRE
"""Half the width of a street including its pavements."""


class Block(NamedTuple):
    """A rectangle in the scene's frame: its centre and half its sides."""

    u: float
    v: float
    half_u: float
    half_v: float


class Painter:
    """Paints single objects on a canvas.

    Args:
        canvas: The canvas of the scene.
    """

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.rng = canvas.rng

    # Ground

    def ground(self, block: Block, colour: tuple[float, ...], label: int, grain: tuple[float, ...]) -> None:
        """Covers a block; `grain` scales the fine, medium and coarse noise of its texture."""
        patch = self.canvas.patch(block.u, block.v, float(np.hypot(block.half_u, block.half_v)))
        if patch is not None:
            inside = (np.abs(patch.a) <= block.half_u) & (np.abs(patch.b) <= block.half_v)
            self.canvas.fill(patch, inside, self._textured(patch, colour, grain), label)

    def _textured(self, patch: Patch, colour: tuple[float, ...], grain: tuple[float, ...]) -> Array:
        noises = (self.canvas.fine, self.canvas.medium, self.canvas.coarse)
        change = sum(weight * noise[patch.window] for weight, noise in zip(grain, noises, strict=True))
        return np.asarray(colour, dtype=np.float32) * (1 + np.asarray(change, dtype=np.float32)[..., None])

    def lawn(self, block: Block) -> None:
        """Fresh to dry grass."""
        dry = self.rng.beta(1.2, 3)
        fresh, parched = np.asarray([92, 118, 66, 172]), np.asarray([152, 146, 98, 150])
        self.ground(block, tuple(fresh * (1 - dry) + parched * dry), LOW_VEGETATION, (0.07, 0.05, 0.08))

    def pavement(self, block: Block) -> None:
        """Paving stones or concrete."""
        tone = self.rng.uniform(0.85, 1.15)
        self.ground(block, (148 * tone, 144 * tone, 138 * tone, 132 * tone), IMPERVIOUS, (0.05, 0.02, 0.03))

    def asphalt(self, block: Block) -> None:
        """Asphalt, from dark to light."""
        tone = self.rng.uniform(0.85, 1.2)
        self.ground(block, (92 * tone, 92 * tone, 96 * tone, 84 * tone), IMPERVIOUS, (0.05, 0.03, 0.06))

    def paint(self, block: Block) -> None:
        """White road markings."""
        self.ground(block, (205, 205, 200, 180), IMPERVIOUS, (0.05, 0.03, 0.0))

    def street(self, street: Block) -> None:
        """A roadway with cars at the kerbs, between pavements."""
        along_u = street.half_u > street.half_v
        kerb = 1.6 * METRE
        self.pavement(street)
        lane = (
            street._replace(half_v=street.half_v - kerb)
            if along_u
            else street._replace(half_u=street.half_u - kerb)
        )
        self.asphalt(lane)
        length = street.half_u if along_u else street.half_v
        busy = self.rng.choice([0.0, 0.3, 0.6])
        for offset in np.arange(-length, length, 6 * METRE):
            along = offset + self.rng.uniform(-3, 3)
            self.paint(self._on(street, along, 0.0, 5.0, 0.7))
            for side in (-1, 1):
                if self.rng.random() < busy:
                    place = self._on(street, along + 8, side * 1.9 * METRE, 0, 0)
                    self.car(place.u, place.v, 0.0 if along_u else np.pi / 2)

    @staticmethod
    def _on(street: Block, along: float, across: float, half_along: float, half_across: float) -> Block:
        if street.half_u > street.half_v:
            return Block(street.u + along, street.v + across, half_along, half_across)
        return Block(street.u + across, street.v + along, half_across, half_along)

    # Objects

    def building(self, place: Block, storeys: float, *, flat: bool) -> None:
        """A building with a gabled or a flat roof, and a height from which its shadow results."""
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
                self.box(
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
            self.box(spot, (120, 88, 78, 100), BUILDING, eaves + 0.7 * half_b + 5)

    def box(self, place: Block, colour: tuple[float, ...], label: int, height: float) -> None:
        """A cuboid with a horizontal top."""
        patch = self.canvas.patch(place.u, place.v, place.half_u + place.half_v)
        if patch is not None:
            inside = (np.abs(patch.a) <= place.half_u) & (np.abs(patch.b) <= place.half_v)
            self.canvas.fill(patch, inside, self._textured(patch, colour, (0.05, 0.03, 0.0)), label, height)

    def tree(self, u: float, v: float, radius: float) -> None:
        """A tree crown: an uneven dome with a wavy outline."""
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

    def car(self, u: float, v: float, angle: float) -> None:
        """A car, if the whole place is paved and free."""
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

    def clutter(self, u: float, v: float) -> None:
        """A heap of sand, a pool or a container, if the place is open ground."""
        colour = CLUTTERS[self.rng.integers(len(CLUTTERS))]
        place = Block(u, v, self.rng.uniform(6, 16), self.rng.uniform(6, 12))
        patch = self.canvas.patch(u, v, 1.0)
        if patch is not None and np.isin(self.canvas.label[patch.window], (IMPERVIOUS, LOW_VEGETATION)).all():
            self.box(place, colour, CLUTTER, self.rng.choice([0.0, 4.0]))

    def within(self, block: Block, margin: float = 0.0) -> tuple[float, float]:
        """A random point (u, v) of a block, at least `margin` away from its sides."""
        half_u, half_v = max(block.half_u - margin, 1), max(block.half_v - margin, 1)
        return block.u + self.rng.uniform(-half_u, half_u), block.v + self.rng.uniform(-half_v, half_v)
