"""Outputs of networks on the host."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ome.errors import UserError


def on_host(outputs: Tensor, what: str) -> NDArray[Any]:
    """Copies outputs to the host, where their values are looked at without making a GPU wait.

    Args:
        outputs: Outputs of a network.
        what: Their name in the plural, for the message.

    Raises:
        UserError: One of them is nan or infinite.
    """
    values: NDArray[Any] = outputs.cpu().numpy()
    if not np.isfinite(values).all():
        raise not_finite(what)
    return values


def not_finite(what: str) -> UserError:
    """The error for outputs that are nan or infinite, as those of large weights are in float16."""
    return UserError(
        f"{what} are nan or infinite: predict in float32 (trainer.precision=32-true, for CAMs "
        "stage.cam.export.precision=32-true); if they still are, train again with a lower learning rate"
    )
