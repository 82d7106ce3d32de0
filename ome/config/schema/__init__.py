"""The type, range and meaning of every setting: a field of a dataclass at the setting's address.

A field's annotation has its type, its limits and its meaning, with unit and source; `conf/` has the values. A
group with a `_target_` is an object of the user's and may lack keys.
"""

from dataclasses import dataclass
from typing import Annotated

from ome.config.schema.data import Dataset
from ome.config.schema.general import Logger, Prediction, Quirks, Trainer
from ome.config.schema.limits import Seed
from ome.config.schema.networks import Backbone, Classifier, Crf, Segmenter
from ome.config.schema.stages import Patterns, Stages

__all__ = ["Settings", "Trainer"]


@dataclass
class Settings:
    """The whole configuration."""

    seed: Annotated[Seed, "seed of every random choice: initial weights, order and augmentation of tiles"]
    force: Annotated[bool, "run the stage even if its result is up to date"]
    verify: Annotated[bool, "check files by their hashes, not only by size and time"]
    plan: Annotated[bool, "print the stages, tiles, steps and times of what would run, and run nothing"]
    output: Annotated[str, "folder of the runs' folders"]
    name: Annotated[str, "name of the run and of its folder"]
    run_dir: Annotated[str, "folder of the run"]
    scenes: Annotated[str, "folder of the prepared scenes, which runs share"]
    inherit: Annotated[
        Patterns | None,
        "other runs whose finished stages are reused if the settings are the same: folders or patterns",
    ]
    dataset: Dataset
    backbone: Backbone
    classifier: Classifier
    segmenter: Segmenter
    crf: Crf
    prediction: Prediction
    quirks: Quirks
    trainer: Trainer
    logger: Logger
    stage: Stages
