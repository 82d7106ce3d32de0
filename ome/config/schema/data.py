"""Types of the settings of a dataset."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ome.config.schema.limits import (
    NAN_ALLOWED,
    NOT_EMPTY,
    SORTED,
    Byte,
    Colour,
    Count,
    Fraction,
    Natural,
    Positive,
    Seed,
    length,
)

Bands = Annotated[list[Count], NOT_EMPTY]
Listing = list[str] | str


@dataclass
class Tile:
    """`dataset.tile`."""

    size: Annotated[Count, "side of a tile, of a training crop and of the windows of a prediction, pixels"]
    stride: Annotated[Count, "distance of neighbouring tiles, pixels"]
    cover: Annotated[bool, "add tiles that end at the scene's edge, so that the tiles cover the whole scene"]


@dataclass
class Filter:
    """`dataset.filter`: which classes of which tiles the classifier trains on, if tags come from masks."""

    minimum: Annotated[
        Fraction,
        "least fraction of a tile that a class must cover; below, the class is left out of this tile's loss, "
        "or the tile of the training (stage.labels.drops)",
    ]
    overrides: Annotated[dict[str, Fraction] | None, "other fractions by class, e.g. {car: 0.025}"]


@dataclass
class Folders:
    """`dataset.split.folders`, instead of lists: names or ends of paths; the innermost folder decides."""

    train: Annotated[list[str], "folders of the training scenes; an archive counts as a folder of its name"]
    val: Annotated[list[str], "folders of the validation scenes"]
    test: Annotated[list[str], "folders of the test scenes"]


@dataclass
class Split:
    """`dataset.split`: lists of scenes, list files, numbers of scenes, or folders."""

    train: Annotated[Listing | None, "training scenes: names, or the path of a file with one name per line"]
    val: Annotated[Listing | None, "validation scenes"]
    test: Annotated[Listing | None, "test scenes"]
    numeric: Annotated[
        Annotated[list[Natural], length(3)] | None,
        "instead of lists: numbers of training, validation and test scenes, sorted by their numbers",
    ]
    folders: Folders | None
    absent: Annotated[
        Literal["refuse", "skip"] | None, "scenes in the lists that have no image; null: refuse"
    ]


@dataclass
class Town:
    """`dataset.town`: the procedural town."""

    size: Annotated[Count, "side of a scene, pixels"]
    seed: Annotated[Seed, "seed of the town; the same seed gives the same bytes"]


@dataclass
class Dataset:
    """`dataset`."""

    name: Annotated[str, "name of the dataset, a part of the names of scenes and runs"]
    raw: Annotated[str | None, "folder of the archives or images; only stage=prepare needs it"]
    resolution: Annotated[Positive | None, "pixel size, metres"]
    bands: Annotated[str, "key of dataset.images to use"]
    reference: Annotated[str | None, "key of dataset.masks to use"]
    classes: Annotated[
        dict[str, Colour] | list[str] | None,
        "names and colours, {road: [255, 0, 0]}, or names only (custom); null: those in the table of tags",
    ]
    ignored: Annotated[dict[str, Colour] | None, "colours in masks that do not belong to a class"]
    indices: Annotated[
        dict[str, Byte] | None, "values in masks of one band, by class; null: masks have colours"
    ]
    images: Annotated[dict[str, Any] | None, "location of the images by kind: {archive, pattern, channels}"]
    masks: Annotated[
        dict[str, Any] | str | None,
        "location of the reference masks by kind: {archive, pattern}; dataset=custom: their folder",
    ]
    channels: Annotated[
        Bands | None, "bands of the image, from 1, e.g. [4, 3, 2]; null: those in dataset.images"
    ]
    display: Annotated[
        Bands | None, "positions, from 1, of the three channels for CRF and pictures; null: the first three"
    ]
    nodata: Annotated[
        Annotated[float, NAN_ALLOWED] | None,
        "value of pixels without data, e.g. 0 for black borders; null: the nodata value in the files",
    ]
    range: Annotated[
        Annotated[list[Natural], length(2), SORTED] | None,
        "values of 16-bit images that become 0 and 255; null: percentiles 2 and 98 of each image and band",
    ]
    split: Annotated[Split | Literal["tags"], "split of the scenes; tags: the split in the table of tags"]
    tags: Annotated[str | None, "table of tags (.csv or .xlsx); null: tags are derived from the masks"]
    tile: Tile
    filter: Filter
    town: Town | None
