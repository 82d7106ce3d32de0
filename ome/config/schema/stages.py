"""Types of the settings of stages."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ome.config.schema.general import Precision
from ome.config.schema.limits import (
    AtLeast,
    Between,
    Byte,
    Count,
    FileOrName,
    Fraction,
    FractionAboveZero,
    FractionBelowOne,
    Natural,
    NotEmpty,
    NotNegative,
    Positive,
    Positives,
    ScaleRange,
)
from ome.config.schema.networks import Augmented

Threads = Annotated[
    Count | None, "tiles at a time; null: one for each core; crf.backend=torch on a GPU: always one"
]
Network = Annotated[str | None, "weak, full, round_1 (of refine); null: the last that the run has trained"]
Patterns = str | list[str]


@dataclass
class Prepare:
    """`stage.prepare`."""

    broken: Annotated[
        Literal["fail", "skip"], "scenes that cannot be read: skip leaves them out, and names them"
    ]


@dataclass
class PolySgd:
    """SGD with polynomial decay (SEAM, Wang et al., CVPR 2020)."""

    epochs: Annotated[Count, "passes over the tiles"]
    batch: Annotated[Count, "tiles in a step, over all processes"]
    lr: Annotated[Positive, "learning rate; new layers train ten times as fast"]
    momentum: Annotated[FractionBelowOne, "momentum of SGD"]
    weight_decay: Annotated[NotNegative, "decay of all weights but biases, per step and unit of the rate"]
    power: Annotated[NotNegative, "power of the polynomial decay of the rate"]


@dataclass
class Optimizer:
    """`stage.cam`, chosen by `optimizer=sgd` or `optimizer=adamw`."""

    optimizer: Annotated[Literal["sgd", "adamw"], "SGD, or AdamW, which transformers need"]
    norm_decay: Annotated[bool, "decay normalisation layers too"]
    schedule: Annotated[Literal["poly", "cosine", "constant"], "how the rate falls from step to step"]
    warmup: Annotated[FractionBelowOne, "fraction of all steps in which the rate rises linearly"]
    layer_decay: Annotated[
        FractionAboveZero,
        "factor on the rate from each layer of the backbone to the one below (BEiT, ICLR 2022)",
    ]


@dataclass
class Export:
    """`stage.cam.export`."""

    write: Annotated[bool, "false: the stage pseudo makes the CAMs when it needs them, and none lies on disk"]
    scales: Annotated[Positives, "factors by which a tile is resized; the CAMs are summed"]
    flip: Annotated[bool, "also CAMs of the mirror image"]
    precision: Annotated[
        Precision, "16-mixed, bf16-mixed: faster where the device has it; maps differ in the second digit"
    ]
    megapixels: Annotated[
        Positive | None, "images in one forward pass, megapixels; null: 0.3 on a CPU, 16 on a GPU"
    ]


@dataclass
class Cam(Augmented, PolySgd, Optimizer):
    """`stage.cam`."""

    checkpoint: Annotated[
        FileOrName | None,
        "/path/resnet38_SEAM.pth: a trained classifier of these classes, nothing is trained",
    ]
    clip: Annotated[Positive | None, "largest norm of the gradient; null: any, as published"]
    rescale: Annotated[
        ScaleRange, "random resize of a batch, whose tiles stay whole: least and largest factor"
    ]
    average: Annotated[
        FractionBelowOne,
        "fraction of all steps that the average of the weights, which is kept, looks back on; 0: none",
    ]
    crop: Annotated[Count | None, "side of a training crop, pixels; null: dataset.tile.size"]
    validation_tiles: Annotated[Natural, "fixed tiles that are scored after each epoch; 0: none"]
    export: Export


@dataclass
class Affinity(Augmented, PolySgd):
    """`stage.affinity`: AffinityNet (Ahn & Kwak, CVPR 2018)."""

    alphas: Annotated[
        Positives, "powers of the background (1 - max CAM)^alpha in the CRF runs that make the labels"
    ]
    radius: Annotated[
        Annotated[int, AtLeast(2)], "distance within which pairs are compared, cells of 8 pixels"
    ]
    beta: Annotated[Positive, "power of the affinity in the walk"]
    steps: Annotated[Natural, "steps of the walk"]
    threads: Threads


@dataclass
class _Labelling:
    response_scales: Annotated[
        Positives, "powers of a class's map; 1 is the plain run (OME, Li et al., IEEE TGRS 2023)"
    ]
    mask: Annotated[
        Literal["crf", "cam"], "which argmax becomes the pseudo mask: after the CRF, or of the CAM"
    ]
    background: Annotated[
        Positive | None,
        "power of a map (1 - largest CAM)^power; the pixels it wins teach nothing; null: none",
    ]
    agreement: Annotated[Fraction, "factor on the weight where the argmaxes of CAM and CRF differ; 1: none"]
    threads: Annotated[
        Count | None, "threads; null: one for each core; crf.backend=torch on a GPU: up to 16 tiles a pass"
    ]


@dataclass
class Pseudo(_Labelling):
    """`stage.pseudo`."""

    cams: Annotated[
        str,
        "whose CAMs: cam, affinity (those after the random walk), or a folder of maps, see docs/own_cams.md",
    ]


@dataclass
class Ablation:
    """`stage.ablation`."""

    tiles: Annotated[Count, "training tiles with a reference, evenly spaced; the CRF runs on these alone"]
    response_scales: Annotated[Positives, "as stage.pseudo.response_scales"]
    backgrounds: Annotated[list[Positive], "powers of the background map (1 - largest CAM)^power"]
    weights: Annotated[list[Byte], "least weights of the pixels that are kept, 0 to 255"]
    random_walk: Annotated[
        bool, "also variants of the CAMs after the random walk, for which stage=all then runs affinity"
    ]
    threads: Threads


@dataclass
class Seg:
    """`stage.seg`."""

    targets: Annotated[
        Annotated[list[Literal["weak", "full"]], NotEmpty()],
        "which to train: on the pseudo masks, and the pixel-supervised upper bound",
    ]


@dataclass
class Refine(_Labelling):
    """`stage.refine`."""

    rounds: Annotated[Natural, "most rounds of new pseudo masks and a new segmenter; 0: none"]
    cams: Annotated[
        Literal["cam", "affinity"] | None,
        "whose CAMs are averaged with the prediction; null: none, as published",
    ]
    settled: Annotated[
        NotNegative, "stop when this share of pixels keeps its pseudo mask from one round to the next"
    ]
    scales: Annotated[Positives, "resizings of a training tile, whose predictions are averaged"]
    flip: Annotated[bool, "also predict the mirror image"]


@dataclass
class Report:
    """`stage.report`."""

    tiles: Annotated[
        Annotated[int, Between(0, 24)],
        "tiles, and scenes, that are shown; three of the worst come on top",
    ]
    figures: Annotated[bool, "write the charts as PDF too, into report/figures, for papers"]


@dataclass
class Predict:
    """`stage.predict`."""

    others: Annotated[
        str | list[str] | None,
        "other runs of the same classes, whose probabilities are averaged with this run's",
    ]

    scene: Annotated[
        str | None,
        "a GeoTIFF, PNG, JPEG, JPEG 2000 or VRT, or a folder: rasters on one grid are one scene, photographs "
        "are mapped each; also https://, s3://, /vsizip/ARCHIVE/MEMBER, or a STAC item (.json); or many "
        "scenes: a list (.txt, one a line) or a pattern such as '/data/*.tif'",
    ]
    asset: Annotated[str | None, "the asset of a STAC item; null: its only raster, or data, or visual"]
    allow_external: Annotated[bool, "let a VRT or a STAC item read what lies outside its folder"]
    network: Network
    confidence: Annotated[bool, "a raster of the probability of the class on the map"]
    probabilities: Annotated[bool, "a raster of the probability of every class"]
    polygons: Annotated[bool, "a GeoPackage with class, area and mean confidence; needs ome[vector]"]
    simplify: Annotated[
        NotNegative, "by which outlines of polygons may move, pixels; 0: they follow the pixels"
    ]
    crf: Annotated[bool, "refine every window by the CRF"]
    threads: Threads


@dataclass
class ExportNetwork:
    """`stage.export`."""

    network: Network
    target: Annotated[Literal["deepness"] | None, "also an ONNX for a program: the plug-in Deepness of QGIS"]


@dataclass
class Compare:
    """`stage.compare`."""

    format: Annotated[Literal["table", "markdown", "latex"], "how the table is printed"]

    runs: Annotated[Patterns | None, "folders or patterns, e.g. 'runs/potsdam_*' or [runs/a, runs/b]"]
    settings: Annotated[
        Patterns | None,
        "settings that name the rows, e.g. [classifier, stage.cam.lr]; null: the fewest that differ",
    ]


@dataclass
class Reproduce:
    """`stage.reproduce`."""

    run: Annotated[str | None, "the folder of the run"]


@dataclass
class Stages:
    """`stage`."""

    name: Annotated[str, "the stage to run, or all"]
    until: Annotated[str, "the last stage that stage=all runs"]
    prepare: Prepare
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
