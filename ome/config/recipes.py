"""Builds the optimiser and the loss of a segmenter's recipe."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from ome.config.objects import optimization
from ome.data.datasets import MaskOf
from ome.data.tiles import Tile
from ome.distributed.collectives import all_reduce_sum, shard
from ome.errors import UserError
from ome.plugins import import_object
from ome.progress import track
from ome.training.optimizers import Optimization
from ome.training.pixel_losses import LossTerm, Weighting, balanced_class_weights, pixel_weights
from ome.training.segmenter_loss import SegmenterLoss
from ome.training.underfitting import PretendedUnderfitting

RECIPE = "segmenter.recipe"
CLASS_BALANCE = {"balanced": 1.0, "sqrt": 0.5}
"""The power for `balanced_class_weights` by the name of the class weights."""


def optimization_of(recipe: DictConfig, steps: int) -> Optimization:
    """Optimiser and schedule of a recipe for a training of some steps.

    Raises:
        UserError: The warm-up is not shorter than the training.
    """
    warmup = steps // 20 if recipe.warmup_steps is None else recipe.warmup_steps
    if warmup >= steps:
        raise UserError(f"{RECIPE}.warmup_steps={warmup} must be below {RECIPE}.steps={steps}")
    return replace(optimization(recipe, steps), warmup=warmup, minimum_lr=recipe.minimum_lr)


def loss_of(segmenter: DictConfig, num_classes: int, count: Callable[[], Sequence[float]]) -> SegmenterLoss:
    """The loss of a segmenter's recipe, with that of its auxiliary head.

    Args:
        segmenter: The configured segmenter.
        num_classes: Number of classes C.
        count: Returns the pixels of each class in the training masks; only called for named class weights.

    Raises:
        UserError: Class weights do not fit the classes, or a further term cannot be built.
    """
    recipe = segmenter.recipe
    return SegmenterLoss(
        recipe.weighting,
        class_weights=_class_weights(recipe.class_weights, num_classes, count),
        label_smoothing=recipe.label_smoothing,
        ohem=recipe.ohem,
        dice=recipe.dice,
        lovasz=recipe.lovasz,
        underfit=PretendedUnderfitting(recipe.underfit, recipe.underfit_beta, recipe.underfit_k),
        auxiliary_weight=segmenter.auxiliary_weight,
        losses=[_loss_term(term, number, num_classes) for number, term in enumerate(recipe.losses)],
    )


def _loss_term(term: DictConfig, number: int, num_classes: int) -> tuple[float, LossTerm]:
    """Weight and loss of an entry of `segmenter.recipe.losses`, after a trial on random numbers."""
    key, weight = f"{RECIPE}.losses[{number}]", term.get("weight", 1.0)
    if "_target_" not in term:
        raise UserError(f"{key}: give _target_, the dotted path of a class or function")
    if isinstance(weight, (bool, str)) or weight is None or not 0 <= weight < math.inf:
        raise UserError(f"{key}.weight={weight}: expected a number of at least 0")
    arguments = {str(name): value for name, value in term.items() if name not in {"_target_", "weight"}}
    kind = import_object(term._target_, f"{key}._target_")
    try:
        loss = kind(**arguments) if isinstance(kind, type) else partial(kind, **arguments)
        value = _trial(loss, num_classes)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{key}: {term._target_} is not a loss of (logits, mask, factor): {reason}"
        ) from error
    if fault := _fault_of(value):
        raise UserError(f"{key}: {term._target_} returns {fault}")
    return float(weight), loss


def _trial(loss: LossTerm, num_classes: int) -> Tensor:
    """The loss of two random images; 0 if the number of classes is unknown."""
    if not num_classes:
        return torch.zeros((), requires_grad=True)
    random, side = torch.Generator().manual_seed(0), 64
    mask = torch.randint(num_classes, (2, side, side), generator=random)
    logits = torch.randn(2, num_classes, side, side, generator=random, requires_grad=True)
    return loss(logits.clone(), mask, torch.ones(2, side, side))  # which may be changed in place


def _fault_of(value: object) -> str | None:
    """What is wrong with the result of a trial."""
    if not isinstance(value, torch.Tensor):
        return f"{type(value).__name__}, not a scalar tensor"
    if value.ndim:
        return f"a tensor of the shape {tuple(value.shape)}: give one number, e.g. its mean"
    if not value.isfinite():
        return f"{value.item()} for random logits"
    return None if value.requires_grad else "a value that does not depend on the logits, so it trains nothing"


def _class_weights(
    configured: str | Sequence[float] | None, num_classes: int, count: Callable[[], Sequence[float]]
) -> list[float] | None:
    if configured is None:
        return None
    if isinstance(configured, str):
        return balanced_class_weights(count(), CLASS_BALANCE[configured])
    weights = [float(weight) for weight in configured]
    if len(weights) != num_classes or not any(weights):
        raise UserError(
            f"{RECIPE}.class_weights={weights}: give {num_classes} numbers, not all 0, in the order of "
            "dataset.classes"
        )
    return weights


def count_classes(
    tiles: Sequence[Tile], mask_of: MaskOf, num_classes: int, weighting: Weighting
) -> list[float]:
    """Sums the pixels of each class in the masks of tiles, weighted as in the loss; a collective call."""
    counts, tiles = np.zeros(256 * 256, dtype=np.int64), shard(tiles)
    for tile in track(tiles, "pixels of each class, tiles", len(tiles)):
        mask, weight = mask_of(tile)
        counts += np.bincount(mask.ravel() * np.int64(256) + weight.ravel(), minlength=len(counts))
    factors = pixel_weights(torch.arange(256), weighting).double().numpy()
    totals: list[float] = (all_reduce_sum(counts).reshape(256, 256)[:num_classes] @ factors).tolist()
    return totals
