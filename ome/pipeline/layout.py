"""Every path, file name and title of a run's folder that more than one module must know."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.data.scene_index import Scene, SceneIndex
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.geo.raster import read_png

TAGS: Final = "tags.csv"
TAG_SCORES: Final = "tag_scores.csv"
PAGE: Final = "report.html"
RESOLVED: Final = "resolved.yaml"
"""The configuration that a finished command leaves beside its logs."""

SEGMENTER_TITLES: Final = {"weak": "weak segmentation", "full": "pixel-supervised segmentation"}
"""Rows of the segmenters, by the target they learn from."""

CAM_TITLES: Final = {"cam": "CAM", "affinity": "CAM + random walk"}
"""Rows of the CAMs, by the stage that leaves them."""

PSEUDO_MASK: Final = "pseudo mask"
TRAIN_TILES: Final = "train tiles"


def round_folder(refine: Path, number: int) -> Path:
    """The folder of a round, from 1, within that of the stage refine."""
    return refine / f"round_{number}"


def round_number(folder: Path) -> int:
    """The number of the round whose folder this is."""
    return int(folder.name.removeprefix("round_"))


def round_folders(refine: Path) -> list[Path]:
    """The folders of the rounds that are there, in the order of the rounds."""
    return sorted(refine.glob("round_*"), key=round_number)


def in_round(title: str, number: int) -> str:
    """The title of a row in a round."""
    return f"{title} (round {number})"


def mask_path(folder: Path, kind: str, tile: Tile) -> Path:
    """Where a tile's `masks`, `weights` or `cam_argmax` image lies in the folder of pseudo or a round."""
    return folder / kind / tile.scene / f"{tile.name}.png"


def map_path(folder: Path, scene: Scene) -> Path:
    """Where the class map of a scene lies in the folder of a segmenter."""
    return folder / "predictions" / f"{scene.name}.tif"


def read_pseudo_label(folder: Path, tile: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Reads a tile's pseudo mask and weight, both (H, W) uint8.

    Raises:
        UserError: One of them is missing or damaged.
    """
    return read_png(mask_path(folder, "masks", tile)), read_png(mask_path(folder, "weights", tile))


def command_files(run: Path) -> list[Path]:
    """The settings of every command that was run in a run's folder, as Hydra left them, in order."""
    places = ("logs/*/config/overrides.yaml", "config/overrides.yaml")
    return sorted(path for place in places for path in run.glob(place))


def read_tag_table(folder: Path, index: SceneIndex) -> TagTable:
    """Reads the tags that the stage labels wrote into its folder.

    Raises:
        UserError: The table is missing or damaged.
    """
    return TagTable.read(folder / TAGS, index.palette.names)
