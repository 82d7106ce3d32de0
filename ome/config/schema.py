"""The types of settings: a dataclass for each part of the configuration, by its address in `SCHEMA`.

A field's type says what a setting takes, its annotation the range. Values and meanings stand in `conf/`.
"""

from dataclasses import dataclass
from typing import Annotated, Final


@dataclass(frozen=True)
class AtLeast:
    """The least value of a number."""

    low: float


@dataclass(frozen=True)
class Above:
    """What a number has to be larger than."""

    low: float


@dataclass(frozen=True)
class Length:
    """How many values a list has."""

    count: int


Count = Annotated[int, AtLeast(1)]
Natural = Annotated[int, AtLeast(0)]
Rate = Annotated[float, Above(0)]
Pair = Annotated[list[float], Length(2)]
Jitter = Annotated[list[float], Length(4)]


@dataclass
class _Augmented:
    scale: Pair
    jitter: Jitter
    dihedral: bool


@dataclass
class _PolySgd:
    epochs: Count
    batch: Count
    lr: Rate
    momentum: float
    weight_decay: float
    power: float


@dataclass
class Export:
    """`stage.cam.export`."""

    write: bool
    scales: list[float]
    flip: bool
    precision: str
    megapixels: float | None


@dataclass
class Cam(_Augmented, _PolySgd):
    """`stage.cam`."""

    checkpoint: str | None
    clip: float | None
    crop: Count | None
    validation_tiles: Natural


@dataclass
class Affinity(_Augmented, _PolySgd):
    """`stage.affinity`."""

    alphas: list[float]
    radius: int
    beta: float
    steps: int
    threads: Count | None


@dataclass
class _Labelling:
    response_scales: list[float]
    mask: str
    background: float | None
    agreement: float
    threads: Count | None


@dataclass
class Pseudo(_Labelling):
    """`stage.pseudo`."""

    cams: str


@dataclass
class Refine(_Labelling):
    """`stage.refine`."""

    rounds: int
    settled: float
    scales: list[float]
    flip: bool


@dataclass
class Predict:
    """`stage.predict`."""

    scene: str | None
    allow_external: bool
    network: str | None
    confidence: bool
    probabilities: bool
    polygons: bool
    simplify: float
    crf: bool
    threads: Count | None


@dataclass
class Recipe(_Augmented):
    """`segmenter.recipe`."""

    steps: Count
    steps_per_epoch: Count
    batch: Count
    optimizer: str
    lr: Rate
    head_lr: float
    momentum: float
    weight_decay: float
    norm_decay: bool
    power: float
    minimum_lr: float
    warmup_steps: int
    label_smoothing: float
    ohem: float | None
    dice: float
    lovasz: float


@dataclass
class Trainer:
    """`trainer`, but for arguments of `pl.Trainer`."""

    accelerator: str
    devices: int
    num_nodes: int
    strategy: str
    precision: str
    workers: Natural | None


@dataclass
class Front:
    """The front page."""

    seed: int
    force: bool
    verify: bool


SCHEMA: Final[dict[str, type]] = {
    "": Front,
    "stage.cam": Cam,
    "stage.cam.export": Export,
    "stage.affinity": Affinity,
    "stage.pseudo": Pseudo,
    "stage.refine": Refine,
    "stage.predict": Predict,
    "segmenter.recipe": Recipe,
    "trainer": Trainer,
}
"""Which dataclass types the settings at an address."""
