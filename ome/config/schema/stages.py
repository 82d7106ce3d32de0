"""Types of the settings of stages, except those in `cams` and `maps`."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from ome.config.schema.cams import Affinity, Cam, Threads
from ome.config.schema.limits import (
    NOT_EMPTY,
    Byte,
    Count,
    Fraction,
    Natural,
    NotNegative,
    Positive,
    Positives,
    Scales,
    between,
)
from ome.config.schema.maps import ExportNetwork, Predict

MOST_TILES: Final = 24
"""Largest number of tiles and of scenes in the report, so that its page stays small."""

Patterns = str | list[str]


@dataclass
class Prepare:
    """`stage.prepare`."""

    broken: Annotated[
        Literal["fail", "skip"], "scenes that cannot be read: fail, or skip them and print their names"
    ]


@dataclass
class Labels:
    """`stage.labels`."""

    drops: Annotated[
        Literal["class", "tile"],
        "what is not learnt from where a class covers less than dataset.filter.minimum: that class in that "
        "tile, or, as published, the whole tile",
    ]


@dataclass
class _Labelling:
    response_scales: Annotated[
        Positives, "powers of a class's map; 1 leaves it as it is (OME, Li et al., IEEE TGRS 2023)"
    ]
    mask: Annotated[
        Literal["crf", "cam"], "argmax that becomes the pseudo mask: after the CRF, or of the CAM"
    ]
    background: Annotated[
        Positive | None,
        "power of a background map (1 - largest CAM)^power; its pixels are not trained on; null: none",
    ]
    agreement: Annotated[
        Fraction, "factor on the weight of pixels where the argmaxes of CAM and CRF differ; 1: no change"
    ]
    threads: Annotated[
        Count | None, "threads; null: one for each core; crf.backend=torch on a GPU: up to 16 tiles a pass"
    ]


@dataclass
class Pseudo(_Labelling):
    """`stage.pseudo`."""

    cams: Annotated[
        str, "source of the CAMs: cam, affinity (after the random walk), or a folder, see docs/own_cams.md"
    ]


@dataclass
class Ablation:
    """`stage.ablation`."""

    tiles: Annotated[Count, "number of training tiles with a reference mask, evenly spaced, that are scored"]
    response_scales: Annotated[Positives, "as stage.pseudo.response_scales"]
    backgrounds: Annotated[list[Positive], "powers of the background map (1 - largest CAM)^power"]
    weights: Annotated[list[Byte], "variants with only the pixels of at least these weights, 0 to 255"]
    random_walk: Annotated[
        bool, "also variants of the CAMs after the random walk, for which stage=all then runs affinity"
    ]
    threads: Threads


@dataclass
class Seg:
    """`stage.seg`."""

    targets: Annotated[
        Annotated[list[Literal["weak", "full"]], NOT_EMPTY],
        "segmenters to train: weak on the pseudo masks, full on the reference masks (the upper bound)",
    ]


@dataclass
class Refine(_Labelling):
    """`stage.refine`."""

    rounds: Annotated[Natural, "largest number of rounds of new pseudo masks and a new segmenter; 0: none"]
    confident: Annotated[
        Fraction | None,
        "least probability, among the tile's tags, of a predicted class that replaces that of the pseudo "
        "mask; null: all pseudo masks are computed anew by the CRF",
    ]
    cams: Annotated[
        Literal["cam", "affinity"] | None,
        "source of the CAMs that are averaged with the prediction; null: none, as published",
    ]
    settled: Annotated[
        NotNegative, "stop when this fraction of pixels has the same pseudo mask as in the round before"
    ]
    scales: Annotated[Scales, "factors by which a training tile is resized; the predictions are averaged"]
    flip: Annotated[bool, "also predict the mirror image"]


@dataclass
class Report:
    """`stage.report`."""

    tiles: Annotated[
        Annotated[int, between(0, MOST_TILES)],
        "number of tiles, and of scenes, that are shown, beside the three worst of each",
    ]
    figures: Annotated[bool, "write the charts also as PDF into report/figures, for papers"]


@dataclass
class Compare:
    """`stage.compare`."""

    format: Annotated[Literal["table", "markdown", "latex"], "format of the printed table"]
    runs: Annotated[Patterns | None, "folders or patterns, e.g. 'runs/potsdam_*' or [runs/a, runs/b]"]
    settings: Annotated[
        Patterns | None,
        "settings that name the rows, e.g. [classifier, stage.cam.lr]; null: the fewest that differ",
    ]


@dataclass
class Reproduce:
    """`stage.reproduce`."""

    run: Annotated[str | None, "folder of the run to repeat"]


@dataclass
class Stages:
    """`stage`."""

    name: Annotated[str, "the stage to run, or all"]
    until: Annotated[str, "the last stage that stage=all runs"]
    prepare: Prepare
    labels: Labels
    cam: Cam
    affinity: Affinity
    pseudo: Pseudo
    ablation: Ablation
    seg: Seg
    refine: Refine
    report: Report
    predict: Predict
    export: ExportNetwork
    compare: Compare
    reproduce: Reproduce
