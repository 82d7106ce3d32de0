"""The type, range and meaning of every setting: a field of a dataclass at the setting's address.

A field's annotation says what it takes, within which limits, and what it does, with its unit and source.
Values stand in `conf/`. A group with a `_target_` is the user's own object and may lack keys.
"""

from dataclasses import dataclass
from typing import Annotated

from ome.config.schema.data import Dataset
from ome.config.schema.general import Logger, Prediction, Quirks, Trainer
from ome.config.schema.limits import Natural
from ome.config.schema.networks import Backbone, Classifier, Crf, Segmenter
from ome.config.schema.stages import Patterns, Stages

__all__ = ["Settings", "Trainer"]


@dataclass
class Settings:
    """The whole configuration."""

    seed: Annotated[Natural, "seed of every random choice: initial weights, order and augmentation of tiles"]
    force: Annotated[bool, "run the stage even when its result still holds"]
    verify: Annotated[bool, "compare the hashes of files as well, not their sizes and times alone"]
    plan: Annotated[bool, "print the stages, tiles, steps and times of what would run, and run nothing"]
    output: Annotated[str, "folder in which every run has one"]
    name: Annotated[str, "name of the run; runs never write into each other's folders"]
    run_dir: Annotated[str, "folder of the run"]
    scenes: Annotated[str, "folder of the prepared scenes, which runs share"]
    inherit: Annotated[
        Patterns | None, "other runs whose finished stages are read where they fit: folders or patterns"
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
