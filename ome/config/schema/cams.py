"""Types of the settings of stages cam and affinity, which train networks for CAMs."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ome.config.schema.general import Precision
from ome.config.schema.limits import (
    Count,
    FileOrName,
    FractionAboveZero,
    FractionBelowOne,
    Natural,
    NotNegative,
    Positive,
    Positives,
    ScaleRange,
    Scales,
    at_least,
)
from ome.config.schema.networks import Augmented, Average

Threads = Annotated[
    Count | None, "tiles at a time; null: one for each core; crf.backend=torch on a GPU: always one"
]


@dataclass
class PolySgd:
    """SGD with polynomial decay (SEAM, Wang et al., CVPR 2020)."""

    epochs: Annotated[Count, "passes over the tiles"]
    batch: Annotated[Count, "tiles per step, over all processes"]
    lr: Annotated[Positive, "learning rate; new layers train ten times as fast"]
    momentum: Annotated[FractionBelowOne, "momentum of SGD"]
    weight_decay: Annotated[NotNegative, "weight decay of everything but biases, as a factor on the rate"]
    power: Annotated[NotNegative, "power of the polynomial decay of the rate"]


@dataclass
class Optimizer:
    """`stage.cam`, chosen by `optimizer=sgd` or `optimizer=adamw`."""

    optimizer: Annotated[Literal["sgd", "adamw"], "SGD, or AdamW, which transformers need"]
    norm_decay: Annotated[bool, "whether weight decay applies to normalisation layers too"]
    schedule: Annotated[Literal["poly", "cosine", "constant"], "decay of the rate over the steps"]
    warmup: Annotated[FractionBelowOne, "fraction of all steps in which the rate rises linearly"]
    layer_decay: Annotated[
        FractionAboveZero,
        "factor on the rate from each layer of the backbone to the one below (BEiT, ICLR 2022)",
    ]


@dataclass
class Export:
    """`stage.cam.export`."""

    write: Annotated[bool, "false: no CAMs are written; stage pseudo computes them when it needs them"]
    scales: Annotated[Scales, "factors by which a tile is resized; the CAMs are summed"]
    flip: Annotated[bool, "also compute the CAMs of the mirror image"]
    compete: Annotated[
        bool, "multiply a class's CAM by its softmax among the tagged classes; false: as published"
    ]
    precision: Annotated[
        Precision,
        "16-mixed, bf16-mixed: faster on devices with such instructions; CAMs differ in the second digit",
    ]
    megapixels: Annotated[
        Positive | None,
        "images in one forward pass, megapixels (less for over 16 classes); null: 0.3 on a CPU, 16 on a GPU",
    ]


@dataclass
class Cam(Augmented, PolySgd, Optimizer):
    """`stage.cam`."""

    checkpoint: Annotated[
        FileOrName | None,
        "a trained classifier of the same classes, e.g. /path/resnet38_SEAM.pth, used instead of training",
    ]
    epochs: Annotated[  # type: ignore[assignment]  # `affinity` has a number
        Count | None,
        "passes over the tiles that are kept, less what is left of a batch; null: enough for 300 steps, from "
        "6 to 20 whole passes",
    ]
    clip: Annotated[Positive | None, "largest norm of the gradient; null: not limited, as published"]
    rescale: Annotated[ScaleRange, "random resize of the whole tiles of a batch: smallest and largest factor"]
    average: Average
    crop: Annotated[
        Count | None,
        "side of a training crop, pixels; null: dataset.tile.size, or the largest tile if all are smaller",
    ]
    validation_tiles: Annotated[Natural, "number of fixed tiles that are scored after each epoch; 0: none"]
    export: Export


@dataclass
class Affinity(Augmented, PolySgd):
    """`stage.affinity`: AffinityNet (Ahn & Kwak, CVPR 2018)."""

    alphas: Annotated[
        Positives, "powers of the background map (1 - largest CAM)^alpha in the CRF runs for the labels"
    ]
    radius: Annotated[
        Annotated[int, at_least(2)], "largest distance of the pairs that are compared, cells of 8 pixels"
    ]
    beta: Annotated[Positive, "power of the affinity in the random walk"]
    steps: Annotated[Natural, "steps of the random walk"]
    threads: Threads
