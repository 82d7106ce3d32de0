"""Confusion matrices. Counting arrays does not import torch."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ome.ignore import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

Labels: TypeAlias = "NDArray[Any] | Tensor"
"""Class indices as an integer array or tensor of any shape."""


def validate_labels(prediction: Labels, reference: Labels, num_classes: int) -> None:
    """Checks that two label maps can be counted.

    Predictions are checked only where the reference has a class: elsewhere a map may be 255.

    Args:
        prediction: Class indices, any shape.
        reference: Class indices or 255, same shape.
        num_classes: C, between 1 and 255.

    Raises:
        ValueError: Shapes differ, a dtype is not integer, or a value is neither a class nor (reference) 255.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(f"num_classes is {num_classes}, must be within 1..{IGNORE}")
    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and reference {tuple(reference.shape)} differ"
        )
    counted = reference != IGNORE
    for name, labels in (("prediction", prediction), ("reference", reference)):
        if "int" not in str(labels.dtype):
            raise ValueError(f"{name} has dtype {labels.dtype}, must be an integer type")
        wrong = int((counted & ((labels < 0) | (labels >= num_classes))).sum())
        if wrong:
            raise ValueError(f"{wrong} pixels of the {name} are outside 0..{num_classes - 1}")


def count_pixels(prediction: "Tensor", reference: "Tensor", num_classes: int) -> "Tensor":
    """Counts pixels by (reference class, predicted class) on the tensors' device.

    Arguments and errors are those of `validate_labels`.

    Returns:
        (C, C) int64; rows are the reference (without 255), columns the prediction.
    """
    import torch  # noqa: PLC0415 - callers with tensors have imported it

    validate_labels(prediction, reference, num_classes)
    counted = reference != IGNORE
    # int64 before the product: uint8 labels would wrap around.
    pairs = reference[counted].long() * num_classes + prediction[counted].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_matrix(prediction: Labels, reference: Labels, num_classes: int) -> NDArray[np.int64]:
    """Counts pixels by (reference class, predicted class); matrices of several maps can be summed.

    The same as `count_pixels`, but on the CPU and also for arrays.
    """
    predicted, true = _array(prediction), _array(reference)
    validate_labels(predicted, true, num_classes)
    counted = true != IGNORE
    pairs = true[counted].astype(np.int64) * num_classes + predicted[counted].astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def where_decided(mask: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The reference (H, W) with 255 also where a mask has no class, so that these pixels are not counted."""
    return np.where(mask == IGNORE, mask, reference)


def _array(labels: Labels) -> NDArray[Any]:
    return labels if isinstance(labels, np.ndarray) else labels.cpu().numpy()
