"""At which steps anybody reads what a training logs; logging a number takes Lightning half a millisecond."""

from typing import Final

import pytorch_lightning as pl

LOG_EVERY: Final = 10
"""Steps between two readings of a scalar off the device."""


def is_read(trainer: pl.Trainer) -> bool:
    """Whether the scalars of the step that is being taken are read.

    By `History` at every tenth step of an epoch, by loggers at every tenth of the training, and by callbacks
    at the end of an epoch.
    """
    return (
        trainer.fit_loop.batch_idx % LOG_EVERY == 0
        or (trainer.global_step + 1) % LOG_EVERY == 0
        or trainer.is_last_batch
    )
