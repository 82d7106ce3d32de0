"""The layout of a scene of the procedural town: blocks with a district in each, and streets between them."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ome.synthetic.canvas import METRE, Canvas
from ome.synthetic.districts import DistrictPainter
from ome.synthetic.objects import STREET, Block


class ScenePainter(DistrictPainter):
    """Paints a whole scene.

    Args:
        canvas: The empty canvas.
    """

    def __init__(self, canvas: Canvas) -> None:
        super().__init__(canvas)
        self.streets: list[Block] = []

    def scene(self) -> None:
        """Divides the scene into blocks, paints a district in each, and the streets between them."""
        districts: dict[bool, list[Callable[[Block], None]]] = {
            False: [self.terraces, self.car_park, self.square, self.car_park],
            True: [self.forest, self.field, self.forest, self.houses, self.park],
        }
        half = 0.72 * self.canvas.size
        upcoming: dict[bool, list[Callable[[Block], None]]] = {False: [], True: []}
        for block, green in list(self._divide(Block(0, 0, half, half))):
            if not upcoming[green]:
                upcoming[green] = [
                    districts[green][index] for index in self.rng.permutation(len(districts[green]))
                ]
            upcoming[green].pop()(block)
        for street in self.streets:
            self.street(street)

    def _divide(self, block: Block, depth: int = 0, *, green: bool = False) -> Iterator[tuple[Block, bool]]:
        """Divides a block recursively into town and country; yields blocks and whether they are country.

        The first cut separates town and country, so that many tiles lack the classes of one of them: tags
        would be useless if every tile showed every class.
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


def draw_scene(
    rng: np.random.Generator, size: int, sun: float, elevation: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draws one scene of the town.

    Args:
        rng: Random generator, which determines the scene.
        size: Side S of the scene in pixels.
        sun: Direction in which shadows fall, in radians from the columns towards the rows.
        elevation: Tangent of the sun's elevation angle.

    Returns:
        The pixels (S, S, 4) uint8 (red, green, blue, near infrared) and the classes (S, S) uint8.
    """
    canvas = Canvas(rng, size, sun, elevation)
    ScenePainter(canvas).scene()
    return canvas.render(), canvas.label
