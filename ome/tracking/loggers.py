"""Loggers for the scalars of trainings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger


@contextmanager
def open_logger(config: DictConfig, folder: Path, title: str) -> Iterator[Logger | None]:
    """Opens the configured logger for one training, and closes it when the block ends, also by an error.

    Every logger gets the same scalars under the same names: those that the module logs, and `learning_rate`.

    Args:
        config: The whole configuration; `config.logger` selects the logger.
        folder: Folder for the logger's files; Weights & Biases has one folder for all trainings of a run.
        title: Name of the training.
    """
    kind = config.logger.kind
    if kind == "wandb":
        from ome.tracking.weights_and_biases import training_logger  # noqa: PLC0415 - an extra

        with training_logger(config, title) as logger:
            yield logger
    elif kind == "tensorboard":
        yield TensorBoardLogger(folder, name="", default_hp_metric=False)
    elif kind == "csv":
        yield CSVLogger(folder, name="")
    else:
        yield None
