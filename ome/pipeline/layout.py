"""Paths, file names and titles of a run's folder that several modules share."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.damage import DamagedError
from ome.data.scene_index import Scene, SceneIndex
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.geo.raster import read_png

CAMS: Final = "cams"
TAGS: Final = "tags.csv"
TAG_SCORES: Final = "tag_scores.csv"
TAG_SUMMARY: Final = "labels.json"
COOCCURRENCE: Final = "cooccurrence.csv"
HISTORY: Final = "history.csv"
NETWORK: Final = "network.pt"
"""Name of a trained network's state dict in the folder of its training."""

AREAS: Final = "_areas.csv"
CONFIDENCE: Final = "_confidence.tif"
PROBABILITIES: Final = "_probabilities.tif"
"""Endings of the names of files beside a map, after the name of the map."""

PAGE: Final = "report.html"

SEGMENTER_TITLES: Final = {"weak": "weak segmentation", "full": "pixel-supervised segmentation"}
"""Titles of the segmenters in tables, by training target."""

CAM_TITLES: Final = {"cam": "CAM", "affinity": "CAM + random walk"}
"""Titles of the CAMs in tables, by the stage that writes them."""

PSEUDO_MASK: Final = "pseudo mask"
TRAIN_TILES: Final = "train tiles"


def round_folder(refine: Path, number: int) -> Path:
    """The folder of a round, counted from 1, in the folder of stage refine."""
    return refine / f"round_{number}"


def round_number(folder: Path) -> int:
    """The number of a round, from its folder's name."""
    return int(folder.name.removeprefix("round_"))


def round_folders(refine: Path) -> list[Path]:
    """The existing folders of rounds, in the order of the rounds."""
    return sorted(refine.glob("round_*"), key=round_number)


def in_round(title: str, number: int) -> str:
    """The title of a table row for a round."""
    return f"{title} (round {number})"


def cam_path(folder: Path, tile: Tile) -> Path:
    """Path of a tile's CAMs in the folder of stage cam or affinity."""
    return folder / CAMS / tile.scene / f"{tile.name}.npz"


def mask_path(folder: Path, kind: str, tile: Tile) -> Path:
    """Path of a tile's `masks`, `weights` or `cam_argmax` image in the folder of stage pseudo or a round."""
    return folder / kind / tile.scene / f"{tile.name}.png"


def map_path(folder: Path, scene: Scene) -> Path:
    """Path of a scene's class map in the folder of a segmenter."""
    return folder / "predictions" / f"{scene.name}.tif"


def read_pseudo_label(folder: Path, tile: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Reads a tile's pseudo mask and weight, both (H, W) uint8.

    Raises:
        UserError: One of them is missing or damaged.
    """
    return read_png(mask_path(folder, "masks", tile)), read_png(mask_path(folder, "weights", tile))


def command_files(run: Path) -> list[Path]:
    """Hydra's `overrides.yaml` of every command that was run in a run's folder, sorted."""
    places = ("logs/*/config/overrides.yaml", "config/overrides.yaml")
    return sorted(path for place in places for path in run.glob(place))


def read_tag_table(folder: Path, index: SceneIndex) -> TagTable:
    """Reads the tags from the folder of stage labels.

    Raises:
        DamagedError: The table is missing or damaged.
    """
    try:
        return TagTable.read(folder / TAGS, index.palette.names)
    except UserError as error:
        raise DamagedError(
            f"{error} (ome wrote this table: type stage=labels verify=true to redo it)"
        ) from error
