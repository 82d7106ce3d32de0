"""Tiles for timing: those of the prepared scenes, or synthetic ones before there are scenes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from ome.cli.timed_parts import Part
from ome.cli.workload import DataFacts
from ome.config.raw_data import raw_layout
from ome.config.sections import scene_reader
from ome.data.palette import Palette
from ome.data.scene_index import Scene, SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile, evenly_spaced
from ome.data.transforms import to_tensor
from ome.synthetic.scene import draw_scene

SIDE: Final = 256
"""Side of the synthetic scene in pixels; it is repeated to the size of a tile."""
TAGGED: Final = 3
"""Number of tags of a synthetic tile."""

BATCH: Final = 64
"""Number of synthetic tiles; a larger batch repeats some."""


class TimingScene(SceneReader):
    """A reader of one scene that exists only in memory: a procedural town.

    Args:
        palette: The classes of the data set.
        channels: Bands of an image, 1-based.
        display: See `SceneReader`.
        side: Side of the scene in pixels.
    """

    def __init__(
        self, palette: Palette, channels: Sequence[int], display: Sequence[int] | None, side: int
    ) -> None:
        scene = Scene("drawn", "train", side, side, max(channels), "", None)
        super().__init__(SceneIndex(Path(), (scene,), palette), channels, display)
        pixels, _ = draw_scene(np.random.default_rng(0), SIDE, 1.0, 1.1)
        times = -(-side // SIDE)
        self._drawn = np.tile(pixels, (times, times, 1))

    def valid(self, tile: Tile) -> NDArray[np.bool_]:
        """Everywhere."""
        return np.ones((tile.height, tile.width), dtype=bool)

    def _pixels(self, tile: Tile, channels: tuple[int, ...]) -> NDArray[np.uint8]:
        window = self._drawn[tile.row : tile.row + tile.height, tile.column : tile.column + tile.width]
        return np.ascontiguousarray(window[..., [(channel - 1) % 4 for channel in channels]])


@dataclass(frozen=True)
class Samples:
    """Tiles with tags.

    Attributes:
        reader: Reads them.
        table: The tags of the training tiles.
        drawn: Whether they are synthetic.
    """

    reader: SceneReader
    table: TagTable
    drawn: bool

    @classmethod
    def of(cls, config: DictConfig, facts: DataFacts) -> "Samples":
        """Tiles of the dataset if its tags are known, else synthetic ones of the configured size."""
        if facts.prepared and facts.index is not None and facts.table is not None:
            tagged = facts.table.select("train", tagged=True)
            return cls(scene_reader(config, facts.index), tagged, drawn=False)
        palette, channels = _palette_and_channels(config, facts)
        height, width = _usual_size(config, facts)
        many = range(min(BATCH, height, width))
        # Just as large as the tiles need: with tags of whole images they may be whole scenes.
        side = max(height, width) + len(many)
        reader = TimingScene(palette, channels, config.dataset.get("display"), side)
        tiles = tuple(Tile("drawn", number, number, height, width) for number in many)
        tags = np.zeros((len(tiles), palette.num_classes), dtype=np.uint8)
        tags[:, :TAGGED] = 1
        kept = np.ones(len(tiles), dtype=bool)
        return cls(reader, TagTable(palette.names, tiles, tags, ("train",) * len(tiles), kept), drawn=True)

    def tiles(self, count: int) -> list[Tile]:
        """At most `count` of the tiles, evenly spaced."""
        return evenly_spaced(self.table.tiles, count)

    def part(self, count: int) -> Part:
        """So many tiles of the size of the first one."""
        return Part(count, self.table.tiles[0].height, self.table.tiles[0].width)

    def cropped(self, part: Part) -> list[Tile]:
        """Tiles of which each is cut to the size of the part."""
        return [
            replace(tile, height=min(tile.height, part.height), width=min(tile.width, part.width))
            for tile in self.tiles(part.tiles)
        ]

    def crops(self, part: Part, crop: int) -> list[Tile]:
        """Tiles for a training whose crops of `crop` pixels are cut to those of the part, in proportion."""
        fraction = part.height / crop
        return [
            replace(tile, height=round(tile.height * fraction), width=round(tile.width * fraction))
            for tile in self.tiles(part.tiles)
        ]

    def mask(self, tile: Tile) -> NDArray[np.uint8]:
        """A mask (H, W) of random classes."""
        size = (tile.height, tile.width)
        return np.random.default_rng(0).integers(0, len(self.table.names), size, dtype=np.uint8)

    def images(self, part: Part) -> NDArray[np.uint8]:
        """Images (B, H, W, bands) of the first tile, repeated to fill them."""
        image = self.reader.image(self.table.tiles[0])
        times = [-(-size // length) for size, length in zip(part[1:], image.shape[:2], strict=True)]
        window = np.tile(image, (*times, 1))[: part.height, : part.width]
        return np.repeat(window[None], part.tiles, axis=0)

    def tensor(self, part: Part) -> Tensor:
        """The same as the networks take them, (B, bands, H, W) float32."""
        images: Tensor = torch.as_tensor(to_tensor(self.images(part)))
        return images


def _usual_size(config: DictConfig, facts: DataFacts) -> tuple[int, int]:
    """Height and width of a training tile: with tags of whole images, those of an image."""
    if facts.card is not None:
        return facts.card.tile, facts.card.tile
    if facts.table is None:
        return (config.dataset.tile.size,) * 2
    return median_low((tile.height, tile.width) for tile in facts.table.tiles)


def _palette_and_channels(config: DictConfig, facts: DataFacts) -> tuple[Palette, tuple[int, ...]]:
    """Classes and bands, from the prepared scenes if they exist, else from the raw dataset."""
    configured = tuple(config.dataset.get("channels") or ())
    if facts.card is not None:
        return Palette(facts.card.classes, {}), facts.card.channels
    if facts.index is not None:
        return facts.index.palette, configured or facts.index.channels or (1, 2, 3)
    layout = raw_layout(config)
    return layout.palette, configured or layout.default_channels or (1, 2, 3)
