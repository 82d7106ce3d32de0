"""Runs a training with the configured seed, hardware, logger, callbacks and arguments of the trainer."""

from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from ome.config.objects import hardware
from ome.config.trainer import callbacks_of, trainer_arguments
from ome.data.datamodules import TileDataModule
from ome.pipeline.stage import Work
from ome.tracking.loggers import open_logger
from ome.training.fit import fit


def train(
    work: Work,
    module: pl.LightningModule,
    data: TileDataModule,
    folder: Path,
    title: str,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Trains a module of a stage and saves its `network` in a folder; see `fit`.

    The folder is that of the stage, or a subfolder of it for each of several trainings.
    """
    with open_logger(work.logged, work.logs / folder.relative_to(work.folder), title) as logger:
        fit(
            module,
            data,
            epochs=data.epochs,
            total_steps=data.total_steps,
            folder=folder,
            title=title,
            seed=work.config.seed,
            hardware=hardware(work.config),
            logger=logger,
            callbacks=[*callbacks, *callbacks_of(work.config)],
            arguments=trainer_arguments(work.config),
        )
