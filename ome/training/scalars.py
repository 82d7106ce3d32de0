"""The steps at which scalars are logged: Lightning needs half a millisecond for each."""

from typing import Any, Final, TypeAlias

import pytorch_lightning as pl

LOG_EVERY: Final = 10
"""Steps between two reads of a scalar from the device."""

Outputs: TypeAlias = Any
"""What Lightning passes to callbacks after a step: a dictionary with `loss`."""


def is_read(trainer: pl.Trainer) -> bool:
    """Whether the scalars of the current step are read.

    `History` reads them at every tenth step of an epoch, loggers at every tenth step of the training, and
    callbacks at the end of an epoch.
    """
    return (
        trainer.fit_loop.batch_idx % LOG_EVERY == 0
        or (trainer.global_step + 1) % LOG_EVERY == 0
        or trainer.is_last_batch
    )
