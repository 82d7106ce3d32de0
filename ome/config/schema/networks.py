"""Types of the settings of networks, their training recipe, and the CRF."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ome.config.schema.limits import (
    Count,
    FileOrName,
    FractionAboveZero,
    FractionBelowOne,
    Natural,
    NotNegative,
    Positive,
    Scale,
    ScaleRange,
    between,
    last_at_most,
    length,
)
from ome.crf.limits import DEVIATIONS, LARGEST_WEIGHT
from ome.data.tiles import FEWEST_STEPS, MOST_STEPS, PASSES

Jitter = Annotated[
    list[NotNegative],
    length(4),
    last_at_most(0.5),
    "largest random changes of brightness, contrast, saturation and hue",
]


@dataclass
class Augmented:
    """Augmentation of training tiles."""

    scale: Annotated[ScaleRange, "random resize before the crop: smallest and largest factor"]
    jitter: Jitter
    dihedral: Annotated[bool, "all eight rotations and mirror images instead of only the horizontal flip"]


Average = Annotated[
    FractionBelowOne,
    "length of the running average of the weights, which is kept, as a fraction of all steps; 0: none",
]


@dataclass
class Backbone:
    """`backbone`."""

    name: Annotated[
        str, "resnet38d, or any segmentation-models-pytorch or timm encoder, e.g. efficientnet-b0"
    ]
    weights: Annotated[FileOrName | None, "/path/file.pth, imagenet, package, or a timm tag; null: random"]
    output_stride: Annotated[
        Literal[8, 16, 32], "pixels per cell of the CAM; 32 for encoders that cannot be dilated"
    ]
    freeze: Annotated[
        bool | Literal["auto"], "freeze BatchNorm and the first layers; auto: if there are weights"
    ]
    encoder: Annotated[str, "encoder of the segmenter"]
    encoder_weights: Annotated[
        FileOrName | None, "weights of the segmenter's encoder, with the values of backbone.weights"
    ]


@dataclass
class Classifier:
    """`classifier`."""

    name: Annotated[str, "name in tables"]
    er_weight: Annotated[
        NotNegative, "weight of the equivariance loss between two views (SEAM, Wang et al., CVPR 2020)"
    ]
    ecr_weight: Annotated[
        NotNegative, "weight of equivariant cross regularisation (SEAM); if both are 0, one view is computed"
    ]
    min_pool_weight: Annotated[
        NotNegative, "weight of the loss that keeps refined CAMs from covering a whole tile"
    ]
    pcm: Annotated[
        bool, "refine the CAM with the pixel correlation module (SEAM), which ECR and min-pool need"
    ]
    attention: Annotated[
        Positive | None,
        "temperature of the encoder's self-attention that refines the CAM at prediction; null: off",
    ]
    zoom: Annotated[
        Scale, "factor by which tiles are enlarged before the network; the work grows with its square"
    ]
    pooling: Annotated[
        Literal["mean", "competing"],
        "how a map becomes its class's score: its mean; competing: its mean weighted by the softmax over the "
        "classes plus 0.1 (after nGWP, Araslanov & Roth, CVPR 2020)",
    ]
    one_vs_all: Annotated[bool, "train one network per class, one after the other, instead of one for all"]


_Deviation = Annotated[float, between(*DEVIATIONS)]
_Weight = Annotated[float, between(0, LARGEST_WEIGHT)]


@dataclass
class Crf:
    """`crf`: the dense CRF (Krähenbühl & Koltun, NeurIPS 2011) that turns class maps into masks."""

    backend: Annotated[
        Literal["lattice", "torch", "auto", "pydensecrf"],
        "lattice: ours, on the CPU; torch: ours, on the trainer's device; auto: torch on a GPU, or lattice; "
        "pydensecrf: the reference implementation, slow",
    ]
    normalisation: Annotated[
        Literal["tile", "absolute"],
        "scaling of the uncertainty: tile: min-max over each tile; absolute: variance / 0.25",
    ]
    iterations: Annotated[Natural, "iterations of mean-field inference"]
    gaussian_sxy: Annotated[_Deviation, "standard deviation of the Gaussian kernel, pixels"]
    gaussian_weight: Annotated[_Weight, "weight of the Gaussian kernel"]
    bilateral_sxy: Annotated[_Deviation, "standard deviation of the bilateral kernel in space, pixels"]
    bilateral_srgb: Annotated[
        _Deviation, "standard deviation of the bilateral kernel in colour, grey values of 0 to 255"
    ]
    bilateral_weight: Annotated[_Weight, "weight of the bilateral kernel"]


@dataclass
class Recipe(Augmented):
    """`segmenter.recipe`."""

    steps: Annotated[
        Count | None,
        f"optimiser steps; null: {PASSES} passes over the tiles, from {FEWEST_STEPS} to {MOST_STEPS:,} steps",
    ]
    steps_per_epoch: Annotated[Count, "steps between two checkpoints"]
    validation_tiles: Annotated[
        Natural, "tiles scored at each checkpoint: of val, else training tiles with a reference mask; 0: none"
    ]
    batch: Annotated[Count, "tiles per step, over all processes"]
    optimizer: Annotated[
        Literal["sgd", "adamw"],
        "adamw: weight decay independent of the gradient (Loshchilov & Hutter, ICLR 2019)",
    ]
    lr: Annotated[Positive, "learning rate of the encoder"]
    head_lr: Annotated[Positive, "factor on the rate of everything except the encoder"]
    momentum: Annotated[FractionBelowOne, "momentum of SGD"]
    weight_decay: Annotated[NotNegative, "weight decay, as a factor on the rate"]
    norm_decay: Annotated[bool, "whether weight decay applies to normalisation layers too"]
    schedule: Annotated[Literal["poly", "cosine", "constant"], "decay of the rate over the steps"]
    layer_decay: Annotated[
        FractionAboveZero, "factor on the rate from each layer of the encoder to the one below"
    ]
    power: Annotated[NotNegative, "power of the polynomial decay of the rate"]
    minimum_lr: Annotated[NotNegative, "rate at the end of the decay"]
    warmup_steps: Annotated[
        Natural | None, "steps in which the rate rises linearly; null: a twentieth of all steps"
    ]
    average: Average
    weighting: Annotated[
        Literal["none", "threshold", "continuous"],
        "pixel weights from uncertainty; threshold: URN (Li et al., AAAI 2022); continuous: weight / 255",
    ]
    underfit: Annotated[
        Literal["none", "pow", "clamp", "ignore"],
        "how pixel losses are reduced once their mean is below underfit_beta (URN)",
    ]
    underfit_beta: Annotated[NotNegative, "mean loss below which pixel losses are reduced"]
    underfit_k: Annotated[
        Positive, "pow: the power; clamp, ignore: the loss above which a pixel counts as noise"
    ]
    class_weights: Annotated[
        Literal["balanced", "sqrt"] | list[NotNegative] | None,
        "balanced: inverse pixel counts of the classes; sqrt: their square roots; a list: one per class",
    ]
    label_smoothing: Annotated[FractionBelowOne, "part of the target that is spread over all classes"]
    ohem: Annotated[
        FractionAboveZero | None,
        "fraction of each process's pixels with the highest losses to keep; null: all",
    ]
    dice: Annotated[NotNegative, "weight of an additional Dice loss"]
    losses: Annotated[
        list[dict[str, Any]], "additional loss terms: {_target_: module.Class, weight: 1.0, ...}"
    ]
    lovasz: Annotated[NotNegative, "weight of an additional Lovasz-Softmax loss (Berman et al., CVPR 2018)"]


@dataclass
class Segmenter:
    """`segmenter`."""

    name: Annotated[str, "the architecture"]
    encoder: Annotated[str, "any segmentation-models-pytorch or timm encoder"]
    weights: Annotated[FileOrName | None, "weights of the encoder: imagenet or /path/file.pth; null: random"]
    freeze_batchnorm: Annotated[
        bool | Literal["auto"], "freeze the encoder's BatchNorm statistics; auto: if there are weights"
    ]
    auxiliary_weight: Annotated[
        NotNegative, "weight of an auxiliary FCN head on the encoder's third stage in training; 0: none"
    ]
    recipe: Recipe
