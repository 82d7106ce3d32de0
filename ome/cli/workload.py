"""What is known about the data before a command runs, and the form in which work is counted."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ome.data.scene_index import SceneIndex
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.pipeline.layout import read_tag_table

if TYPE_CHECKING:
    from ome.inference.card import SegmenterCard

Unit: TypeAlias = Literal[
    "classifier step",
    "classifier validation tile",
    "CAM tile",
    "CRF tile",
    "segmenter step",
    "segmenter validation tile",
    "segmenter tile",
    "segmenter window",
]
"""Units of work that are timed once; the time is multiplied by their number."""


@dataclass(frozen=True)
class Amounts:
    """Remaining work of a stage; None stands for a number that is only known after an earlier stage.

    Attributes:
        tiles: Tiles that the stage works on.
        steps: Optimiser steps.
        units: Number of each unit of work; empty for a stage of which nothing is timed.
        weights: Initial weights of its networks.
    """

    tiles: int | None = 0
    steps: int | None = 0
    units: Mapping[Unit, int | None] = field(default_factory=dict)
    weights: str = ""


@dataclass(frozen=True)
class DataFacts:
    """What is known about the data before a command runs.

    Attributes:
        index: The scenes.
        table: The tags.
        prepared: Whether both were read from finished stages; else from image headers and the table of tags.
        card: Card of the segmenter that maps a scene.
    """

    index: SceneIndex | None = None
    table: TagTable | None = None
    prepared: bool = True
    card: "SegmenterCard | None" = None

    @classmethod
    def of(cls, inputs: Mapping[str, Path]) -> "DataFacts":
        """Reads the results of `prepare` and `labels`, if they are among the folders."""
        if "prepare" not in inputs:
            return cls()
        index = SceneIndex.read(inputs["prepare"])
        return cls(index, read_tag_table(inputs["labels"], index) if "labels" in inputs else None)

    def tiles(self, *, kept: bool = False) -> Sequence[Tile] | None:
        """The training tiles with tags, or those that the filter kept."""
        if self.table is None:
            return None
        return self.table.select("train", kept=kept, tagged=not kept).tiles


def together(parts: Sequence[Amounts], each: float) -> Amounts:
    """The work of all parts of a stage, extrapolated from a sample of them.

    Args:
        parts: The sample; the stage trains nothing and all units are known.
        each: How many parts each of the sample represents.
    """
    counts = Counter[Unit]()
    for part in parts:
        counts.update({unit: count or 0 for unit, count in part.units.items()})
    return Amounts(units={unit: math.ceil(each * count) for unit, count in counts.items()})
