"""Types of the settings of networks, their training recipe, and the CRF."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ome.config.schema.limits import (
    Count,
    FileOrName,
    FractionAboveZero,
    FractionBelowOne,
    LastAtMost,
    Length,
    Natural,
    NotNegative,
    Positive,
    ScaleRange,
)

Jitter = Annotated[
    list[NotNegative],
    Length(4),
    LastAtMost(0.5),
    "largest random changes of brightness, contrast, saturation and hue",
]


@dataclass
class Augmented:
    """How training tiles are varied."""

    scale: Annotated[ScaleRange, "random resize before the crop: the smallest and the largest factor"]
    jitter: Jitter
    dihedral: Annotated[bool, "all eight rotations and reflections instead of the horizontal flip"]


@dataclass
class Backbone:
    """`backbone`."""

    name: Annotated[
        str, "resnet38d, or any segmentation-models-pytorch or timm encoder, e.g. efficientnet-b0"
    ]
    weights: Annotated[FileOrName | None, "/path/file.pth, imagenet, package, or a timm tag; null: random"]
    output_stride: Annotated[
        Literal[8, 16, 32], "pixels of the image to a cell of the CAM; 32 where an encoder cannot be dilated"
    ]
    freeze: Annotated[
        bool | Literal["auto"], "keep BatchNorm and the first layers as loaded; auto: where weights are given"
    ]
    encoder: Annotated[str, "encoder of the segmenter"]
    encoder_weights: Annotated[
        FileOrName | None, "weights of the segmenter's encoder, given like backbone.weights"
    ]


@dataclass
class Classifier:
    """`classifier`."""

    name: Annotated[str, "name of the choice in tables"]
    er_weight: Annotated[
        NotNegative, "weight of the equivariance loss between two views (SEAM, Wang et al., CVPR 2020)"
    ]
    ecr_weight: Annotated[
        NotNegative, "weight of equivariant cross regularisation (SEAM); 0 here and above: one view is enough"
    ]
    min_pool_weight: Annotated[NotNegative, "weight of the loss that keeps refined maps from covering a tile"]
    pcm: Annotated[
        bool, "pixel correlation refines the CAM (SEAM); without it there is neither ECR nor min-pool"
    ]
    attention: Annotated[
        Positive | None, "temperature of the encoder's attention, which spreads the CAM; null: none"
    ]
    zoom: Annotated[
        Positive,
        "factor by which tiles are enlarged before the network; its square multiplies the work",
    ]
    one_vs_all: Annotated[bool, "a network for each class, one after the other, instead of one for all"]


@dataclass
class Crf:
    """`crf`: the dense CRF (Krähenbühl & Koltun, NeurIPS 2011) that turns class maps into masks."""

    backend: Annotated[
        Literal["lattice", "torch", "auto", "pydensecrf"],
        "lattice: ours; torch: the same on the trainer's device; auto: torch on a GPU, else lattice; "
        "pydensecrf: the reference, slow",
    ]
    normalisation: Annotated[
        Literal["tile", "absolute"],
        "how the uncertainty is scaled: min-max over each tile, or variance / 0.25",
    ]
    iterations: Annotated[Natural, "iterations of mean-field inference"]
    gaussian_sxy: Annotated[Positive, "deviation of the Gaussian kernel, pixels"]
    gaussian_weight: Annotated[NotNegative, "weight of the Gaussian kernel"]
    bilateral_sxy: Annotated[Positive, "deviation of the bilateral kernel in space, pixels"]
    bilateral_srgb: Annotated[
        Positive, "deviation of the bilateral kernel in colour, grey values of 0 to 255"
    ]
    bilateral_weight: Annotated[NotNegative, "weight of the bilateral kernel"]


@dataclass
class Recipe(Augmented):
    """`segmenter.recipe`."""

    steps: Annotated[Count, "optimiser steps of the training"]
    steps_per_epoch: Annotated[Count, "steps between two checkpoints"]
    validation_tiles: Annotated[
        Natural, "scored at each checkpoint: of val, else training tiles with a reference; 0: none"
    ]
    batch: Annotated[Count, "tiles in a step, over all processes"]
    optimizer: Annotated[
        Literal["sgd", "adamw"],
        "adamw: weight decay apart from the gradient (Loshchilov & Hutter, ICLR 2019)",
    ]
    lr: Annotated[Positive, "learning rate of the encoder"]
    head_lr: Annotated[Positive, "factor on the rate of everything but the encoder"]
    momentum: Annotated[FractionBelowOne, "momentum of SGD"]
    weight_decay: Annotated[NotNegative, "decay of the weights, per step and unit of the rate"]
    norm_decay: Annotated[bool, "decay normalisation layers too"]
    schedule: Annotated[Literal["poly", "cosine", "constant"], "how the rate falls from step to step"]
    layer_decay: Annotated[
        FractionAboveZero, "factor on the rate from each layer of the encoder to the one below"
    ]
    power: Annotated[NotNegative, "power of the polynomial decay of the rate"]
    minimum_lr: Annotated[NotNegative, "where the decay of the rate ends"]
    warmup_steps: Annotated[Natural | None, "steps of a linear rise to the rate; null: a twentieth of all"]
    average: Annotated[
        FractionBelowOne,
        "fraction of all steps that the average of the weights, which is kept, looks back on; 0: none",
    ]
    weighting: Annotated[
        Literal["none", "threshold", "continuous"],
        "how uncertainty weighs pixels; threshold: URN (Li et al., AAAI 2022); continuous: weight / 255",
    ]
    underfit: Annotated[
        Literal["none", "pow", "clamp", "ignore"],
        "how losses are lowered once their mean is below underfit_beta (URN)",
    ]
    underfit_beta: Annotated[NotNegative, "mean loss from which on losses are lowered"]
    underfit_k: Annotated[Positive, "the power, or the loss from which on a pixel is taken for noise"]
    class_weights: Annotated[
        Literal["balanced", "sqrt"] | list[NotNegative] | None,
        "balanced: all classes count the same in sum; sqrt: its square root; a list: one for each class",
    ]
    label_smoothing: Annotated[FractionBelowOne, "part of the target that is spread over all classes"]
    ohem: Annotated[
        FractionAboveZero | None, "share of the pixels to keep, the hardest of each process; null: all"
    ]
    dice: Annotated[NotNegative, "weight of the Dice loss, added"]
    losses: Annotated[
        list[dict[str, Any]], "terms of your own, added: {_target_: module.Class, weight: 1.0, ...}"
    ]
    lovasz: Annotated[NotNegative, "weight of the Lovasz-Softmax loss (Berman et al., CVPR 2018), added"]


@dataclass
class Segmenter:
    """`segmenter`."""

    name: Annotated[str, "the architecture"]
    encoder: Annotated[str, "any segmentation-models-pytorch or timm encoder"]
    weights: Annotated[FileOrName | None, "weights of the encoder: imagenet or /path/file.pth; null: random"]
    freeze_batchnorm: Annotated[
        bool | Literal["auto"], "keep the encoder's statistics as loaded; auto: where weights are given"
    ]
    auxiliary_weight: Annotated[
        NotNegative, "weight of an FCN head on the third stage while training; 0: no such head"
    ]
    recipe: Recipe
