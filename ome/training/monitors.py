"""The scores that a callback of Lightning can monitor, for early stopping or the best checkpoint."""

from collections.abc import Iterable
from typing import Final

from pytorch_lightning.callbacks import Callback

from ome.errors import UserError, guess

SCORES: Final = (
    *("validation/average_precision", "validation/f1", "validation/cam_miou"),  # of the classifier
    *("validation/miou", "validation/loss"),  # of a segmenter
)
"""Those of the validation."""


def check_monitor(where: str, callback: Callback, logged: Iterable[str]) -> None:
    """Refuses a callback that monitors a score which is not logged.

    Args:
        where: The setting or the training, for the message.
        callback: A callback; most monitor nothing.
        logged: The names of the scores.

    Raises:
        UserError: The score is not among them.
    """
    monitor, names = getattr(callback, "monitor", None), [*logged]
    if monitor is None or monitor in names:
        return
    optional = "; with strict: false, trainings without it go on" if hasattr(callback, "strict") else ""
    raise UserError(
        f"{where}: {type(callback).__name__} monitors {monitor}, which is not logged"
        f"{guess(str(monitor), names, otherwise=';')} there are {', '.join(names)}{optional}"
    )
