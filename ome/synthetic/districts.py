"""Districts of the procedural town: what a block between streets contains."""

import numpy as np

from ome.synthetic.canvas import LOW_VEGETATION, METRE, TREE
from ome.synthetic.objects import Block, Painter


class DistrictPainter(Painter):
    """Paints districts on a canvas; each method fills one block."""

    def terraces(self, block: Block) -> None:
        """Rows of town houses around paved or green courts."""
        rng = self.rng
        (self.pavement if rng.random() < 0.8 else self.lawn)(block)
        deep = rng.uniform(5.5, 7) * METRE
        gap = rng.uniform(8, 14) * METRE
        for v in np.arange(block.v - block.half_v + deep + 8, block.v + block.half_v - deep, 2 * deep + gap):
            u = block.u - block.half_u + 10
            while u < block.u + block.half_u - 60:
                length = min(rng.uniform(9, 20) * METRE, (block.u + block.half_u - 8 - u) / 2)
                self.building(
                    Block(u + length, float(v), length, deep), rng.uniform(2.5, 4.5), flat=rng.random() < 0.4
                )
                u += 2 * length + (0 if rng.random() < 0.6 else rng.uniform(20, 50))
            for _ in range(rng.integers(0, 3)):
                self.tree(
                    block.u + rng.uniform(-1, 1) * block.half_u,
                    float(v) + deep + gap / 2,
                    rng.uniform(11, 18),
                )
        if rng.random() < 0.5:
            self.clutter(*self.within(block, 20))

    def square(self, block: Block) -> None:
        """A paved square with a large building and a few trees."""
        rng = self.rng
        self.pavement(block)
        if rng.random() < 0.7:
            u, v = self.within(block, 110)
            self.building(
                Block(u, v, rng.uniform(50, 95), rng.uniform(40, 60)),
                rng.uniform(2, 4),
                flat=rng.random() < 0.5,
            )
        if rng.random() < 0.4:
            u, v = self.within(block, 20)
            for _ in range(rng.integers(3, 8)):
                self.tree(u + rng.normal(0, 24), v + rng.normal(0, 24), rng.uniform(13, 20))
        if rng.random() < 0.5:
            self.clutter(*self.within(block, 20))

    def houses(self, block: Block) -> None:
        """Detached houses in gardens."""
        rng = self.rng
        self.lawn(block)
        plot = rng.uniform(25, 31) * METRE
        for u in np.arange(block.u - block.half_u + plot / 2, block.u + block.half_u - plot / 3, plot):
            for v in np.arange(block.v - block.half_v + plot / 2, block.v + block.half_v - plot / 3, plot):
                self._garden(Block(float(u), float(v), plot / 2, plot / 2))

    def _garden(self, plot: Block) -> None:
        rng = self.rng
        u, v = plot.u + rng.uniform(-12, 12), plot.v + rng.uniform(-12, 12)
        house = Block(u, v, rng.uniform(6, 9) * METRE, rng.uniform(5, 7.5) * METRE)
        if rng.random() < 0.3:
            self.pavement(Block(u + house.half_u + 12, v - 8, 12, 16))
            if rng.random() < 0.6:
                self.car(u + house.half_u + 12, v - 8, 0.0)
        if rng.random() < 0.12:
            self.clutter(plot.u - 0.7 * plot.half_u, plot.v + 0.7 * plot.half_v)
        self.building(house, rng.uniform(1.3, 2.3), flat=rng.random() < 0.2)
        if rng.random() < 0.45:
            corner = rng.choice([-0.8, 0.8], 2)
            for _ in range(rng.integers(2, 5)):
                away = rng.uniform(-16, 16, 2)
                self.tree(
                    plot.u + corner[0] * plot.half_u + away[0],
                    plot.v + corner[1] * plot.half_v + away[1],
                    rng.uniform(11, 19),
                )

    def park(self, block: Block) -> None:
        """Lawns with groups of trees, sometimes a path."""
        rng = self.rng
        self.lawn(block)
        if rng.random() < 0.4:
            self.pavement(
                block._replace(v=block.v + rng.uniform(-0.5, 0.5) * block.half_v, half_v=1.6 * METRE)
            )
        for _ in range(max(1, int(block.half_u * block.half_v / 9000))):
            u, v = self.within(block, 30)
            for _ in range(rng.integers(3, 10)):
                self.tree(u + rng.normal(0, 26), v + rng.normal(0, 26), rng.uniform(12, 24))

    def forest(self, block: Block) -> None:
        """A closed canopy, sometimes with a clearing; the ground below it is of class tree, too."""
        rng = self.rng
        self.ground(block, (34, 46, 26, 96), TREE, (0.2, 0.15, 0.1))
        for _ in range(int(block.half_u * block.half_v / 70)):
            self.tree(*self.within(block), rng.uniform(10, 21))
        if rng.random() < 0.4:
            u, v = self.within(block, 80)
            self.lawn(Block(u, v, *rng.uniform(25, 45, 2)))
            for _ in range(12):
                turn = rng.uniform(0, 2 * np.pi)
                self.tree(u + 45 * np.cos(turn), v + 45 * np.sin(turn), rng.uniform(10, 18))

    def field(self, block: Block) -> None:
        """A meadow or a crop in rows."""
        rng = self.rng
        self.lawn(block)
        if rng.random() < 0.6:
            width = rng.uniform(5, 14)
            for u in np.arange(block.u - block.half_u + width, block.u + block.half_u, 2 * width):
                tone = rng.uniform(0.9, 1.1)
                row = Block(float(u), block.v, width / 2, block.half_v)
                self.ground(
                    row, (118 * tone, 126 * tone, 74 * tone, 165 * tone), LOW_VEGETATION, (0.08, 0.05, 0.06)
                )
        if rng.random() < 0.4:
            for _ in range(rng.integers(2, 6)):
                u, v = block.u - block.half_u + 20, block.v
                self.tree(u + rng.normal(0, 14), v + rng.normal(0, 30), rng.uniform(14, 22))

    def car_park(self, block: Block) -> None:
        """Rows of parking bays with cars in some of them, and often a hall."""
        rng = self.rng
        self.asphalt(block)
        hall = rng.random() < 0.6
        lot = block
        if hall:
            half = 0.32 * block.half_v
            self.building(
                Block(block.u, block.v - block.half_v + half + 8, 0.85 * block.half_u, half),
                rng.uniform(1.8, 3),
                flat=True,
            )
            lot = Block(block.u, block.v + half + 8, block.half_u, block.half_v - half - 8)
        filled = rng.choice([0.0, 0.5, 0.8])
        for v in np.arange(lot.v - lot.half_v + 24, lot.v + lot.half_v - 16, 15 * METRE):
            for u in np.arange(lot.u - lot.half_u + 16, lot.u + lot.half_u - 12, 2.7 * METRE):
                for side in (-1, 1):
                    self.paint(Block(float(u) - 5.4, float(v) + side * 10.5, 0.6, 9.5))
                    if rng.random() < filled:
                        self.car(float(u), float(v) + side * 11, np.pi / 2)
        if rng.random() < 0.6:
            self.clutter(*self.within(lot, 20))
