"""Types of the settings of a dataset."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ome.config.schema.limits import (
    Byte,
    Colour,
    Count,
    EvenNan,
    Fraction,
    Length,
    Natural,
    NotEmpty,
    Ordered,
    Positive,
)

Bands = Annotated[list[Count], NotEmpty()]
Listing = list[str] | str


@dataclass
class Tile:
    """`dataset.tile`."""

    size: Annotated[Count, "side of a tile, of a training crop and of the windows of a prediction, pixels"]
    stride: Annotated[Count, "distance of two tiles, pixels"]
    cover: Annotated[bool, "one more tile where the last row or column does not reach the scene's edge"]


@dataclass
class Filter:
    """`dataset.filter`: which tiles the classifier trains on."""

    minimum: Annotated[Fraction, "least share of the pixels that every class present covers"]
    overrides: Annotated[dict[str, Fraction] | None, "other shares by class, e.g. {car: 0.025}"]


@dataclass
class Folders:
    """`dataset.split.folders`, instead of lists: names or ends of paths; the innermost one counts."""

    train: Annotated[list[str], "folders whose scenes train; an archive counts as a folder of its name"]
    val: Annotated[list[str], "folders whose scenes validate"]
    test: Annotated[list[str], "folders whose scenes score"]


@dataclass
class Split:
    """`dataset.split` of a dataset with facts: lists of scenes, list files, counts, or folders."""

    train: Annotated[Listing | None, "scenes that train: names, or the path of a file with one name a line"]
    val: Annotated[Listing | None, "scenes that validate"]
    test: Annotated[Listing | None, "scenes that score"]
    numeric: Annotated[
        Annotated[list[Natural], Length(3)] | None,
        "instead of lists: how many scenes train, validate and test, in the order of their numbers",
    ]
    folders: Folders | None
    absent: Annotated[
        Literal["refuse", "skip"] | None, "scenes that lists name and that have no image; null: refuse"
    ]


@dataclass
class Town:
    """`dataset.town`: the procedural town."""

    size: Annotated[Count, "side of a scene, pixels"]
    seed: Annotated[Natural, "the same seed gives the same bytes"]


@dataclass
class Dataset:
    """`dataset`."""

    name: Annotated[str, "names scenes and runs"]
    raw: Annotated[str | None, "folder of the archives or images; needed by stage=prepare alone"]
    resolution: Annotated[Positive | None, "side of a pixel, metres"]
    bands: Annotated[str, "which of dataset.images to use"]
    reference: Annotated[str | None, "which of dataset.masks trains and scores"]
    classes: Annotated[
        dict[str, Colour] | list[str] | None,
        "names with colours, {road: [255, 0, 0]}, or names alone (custom); null: those of the table of tags",
    ]
    ignored: Annotated[dict[str, Colour] | None, "colours in masks that are known, but no class"]
    indices: Annotated[
        dict[str, Byte] | None, "values in masks of one band by class; null: masks hold colours"
    ]
    images: Annotated[dict[str, Any] | None, "where the images are, by kind: {archive, pattern, channels}"]
    masks: Annotated[
        dict[str, Any] | str | None,
        "where the reference masks are, by kind: {archive, pattern}; dataset=custom: their folder",
    ]
    channels: Annotated[
        Bands | None,
        "bands of the image, from 1, e.g. [4, 3, 2]; null: those given with the images",
    ]
    display: Annotated[
        Bands | None,
        "three of the channels for CRF and pictures, by place from 1; null: the first three",
    ]
    nodata: Annotated[
        Annotated[float, EvenNan()] | None,
        "value of pixels where nothing was measured, e.g. 0 for black borders; null: what the files say",
    ]
    range: Annotated[
        Annotated[list[Natural], Length(2), Ordered()] | None,
        "values of 16-bit images that become 0 and 255; null: percentiles 2 and 98 of each image and band",
    ]
    split: Annotated[Split | Literal["tags"], "how scenes are divided; tags: as the table of tags says"]
    tags: Annotated[str | None, "table of tags (.csv or .xlsx) to use instead of those that the masks imply"]
    tile: Tile
    filter: Filter
    town: Town | None
