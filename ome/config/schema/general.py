"""Types of the general settings: machine, logger, prediction, quirks."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ome.config.schema.limits import Count, FractionAboveZero, Natural, Scales

Accelerator = Literal["auto", "cpu", "gpu", "cuda"]
Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]


@dataclass
class Prediction:
    """`prediction`: of whole scenes, with a sliding window of one tile."""

    stride: Annotated[
        FractionAboveZero,
        "distance of neighbouring windows as a fraction of a tile's side; overlapping windows are blended",
    ]
    scales: Annotated[Scales, "factors by which a window is resized; the predictions are averaged"]
    flip: Annotated[bool, "also predict the mirror image"]
    tta: Annotated[
        Literal["d4"] | None,
        "d4: all eight rotations and mirror images, in stage refine too, whatever flip is; null: off",
    ]
    batch: Annotated[
        Count | None, "windows in one forward pass; null: 8 on a CPU, 4 megapixels of windows on a GPU"
    ]


@dataclass
class Quirks:
    """`quirks`: errors of the code that was published with OME; `experiment=reference` measures them."""

    unknown_colours_as_first_class: Annotated[
        bool, "read unknown colours of reference masks as the first class instead of ignoring them"
    ]
    keep_highest_validation_loss: Annotated[
        bool, "keep the classifier of the epoch with the highest validation loss instead of the last epoch"
    ]
    background_read_first: Annotated[
        bool, "read the background map, the last one, as if it were the first map"
    ]


@dataclass
class Trainer:
    """`trainer`, except for the arguments of `pl.Trainer`."""

    accelerator: Annotated[Accelerator, "auto: a GPU if there is one, else the CPU"]
    devices: Annotated[
        Literal[-1] | Count, "devices of this machine, with a process for each (strategy=ddp); -1: every GPU"
    ]
    num_nodes: Annotated[Count, "machines; for more than one see docs/cluster.md"]
    strategy: Annotated[
        Literal["auto", "ddp"],
        "auto: one process; ddp: one for each device, or those that torchrun or srun started",
    ]
    precision: Annotated[
        Precision,
        "precision of trainings and predictions; auto: bf16-mixed if the device has instructions for it",
    ]
    workers: Annotated[
        Natural | None,
        "loader processes; null: none for training on the CPU, else one for each core, up to 8",
    ]
    compile: Annotated[
        bool,
        "compile the forward passes of trainings with torch.compile (on a GPU with CUDA graphs) if there are "
        "at least 5,000 steps for each size of image; not with strategy=ddp",
    ]


@dataclass
class Logger:
    """`logger`."""

    kind: Annotated[Literal["csv", "tensorboard", "wandb", "none"], "logger of the scalars of trainings"]
    project: Annotated[str | None, "Weights & Biases: name of the project"]
    entity: Annotated[str | None, "Weights & Biases: user or team; null: your default"]
    group: Annotated[str | None, "Weights & Biases: null: the run's name, or the sweep's folder"]
    mode: Annotated[
        Literal["online", "offline", "disabled"] | None,
        "Weights & Biases: null: online when logged in, else offline",
    ]
    upload: Annotated[
        bool | None, "Weights & Biases: true: artefacts are uploaded; false: only their paths are recorded"
    ]
