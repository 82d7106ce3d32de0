"""Types of the settings of stages that use a trained segmenter: predict and export."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ome.config.schema.cams import Threads
from ome.config.schema.limits import NotNegative

Network = Annotated[
    str | None, "weak, full, round_1 (of refine); null: the last one that the run has trained"
]


@dataclass
class Predict:
    """`stage.predict`."""

    others: Annotated[
        str | list[str] | None,
        "other runs of the same classes, whose probabilities are averaged with those of this run",
    ]
    scene: Annotated[
        str | None,
        "a GeoTIFF, PNG, JPEG, JPEG 2000 or VRT; a folder: rasters on one grid are one scene, photographs "
        "are mapped one by one; https://, s3://, /vsizip/ARCHIVE/MEMBER, or a STAC item (.json); or many "
        "scenes: a list (.txt, one per line) or a pattern such as '/data/*.tif'",
    ]
    map_name: Annotated[
        str | None,
        "name of the folder and files of the map, or of the tables of a list or a pattern; null: that of the "
        "scene or the list",
    ]
    asset: Annotated[str | None, "asset of a STAC item; null: its only raster, or data, or visual"]
    allow_external: Annotated[bool, "let a VRT or a STAC item read files outside its folder"]
    network: Network
    confidence: Annotated[bool, "write a raster of the probability of the predicted class"]
    probabilities: Annotated[bool, "write a raster of the probability of every class"]
    polygons: Annotated[bool, "write a GeoPackage with class, area and mean confidence; needs ome[vector]"]
    simplify: Annotated[
        NotNegative, "largest distance by which outlines of polygons move, pixels; 0: they follow the pixels"
    ]
    crf: Annotated[bool, "refine every window with the CRF"]
    threads: Threads


@dataclass
class ExportNetwork:
    """`stage.export`."""

    network: Network
    target: Annotated[Literal["deepness"] | None, "write also an ONNX file for the QGIS plug-in Deepness"]
