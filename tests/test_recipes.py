"""What a recipe says of the loss: ranges, and class weights from the training masks."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.checks import check_settings
from ome.config.recipes import count_classes, loss_of, optimization_of
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.training.optimizers import Optimization
from ome.training.pixel_losses import Weighting
from tests.conftest import compose_config


def segmenter(*overrides: str, recipe: str = "sgd") -> DictConfig:
    return compose_config(["dataset=potsdam", f"segmenter/recipe={recipe}", *overrides]).segmenter


def class_weights(*overrides: str) -> Any:  # noqa: ANN401
    return loss_of(segmenter(*overrides), 5, lambda: [10, 30, 0, 80, 0]).settings["class_weights"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("label_smoothing=1", "expected a number of at least 0 and below 1"),
        ("ohem=0", "expected a number above 0"),
        ("dice=-1", "expected a number of at least 0"),
        ("validation_tiles=-1", "expected a whole number of at least 0"),
        ("lovasz=-0.5", "expected a number of at least 0"),
        ("warmup_steps=20000", "must be below segmenter.recipe.steps=20000"),
        ("class_weights=even", "expected balanced, sqrt or a list"),
        ("class_weights=[1,2]", "give 5 numbers, not all 0"),
        ("class_weights=[1,1,1,1,-1]", "expected balanced, sqrt or a list"),
        ("underfit=foo", "expected none, pow"),
    ],
)
def test_values_out_of_range_are_one_line(override: str, message: str) -> None:
    key = f"segmenter.recipe.{override.partition('=')[0]}"
    config = compose_config(["dataset=potsdam", "segmenter/recipe=sgd", f"segmenter.recipe.{override}"])
    with pytest.raises(UserError, match=f"^{key}=.*{message}[^\\n]*$"):
        check_settings(config, ["seg"])


def test_class_weights_are_balanced_given_or_none() -> None:
    assert class_weights() is None
    assert class_weights("segmenter.recipe.class_weights=[1,2,3,4,5]") == [1, 2, 3, 4, 5]
    balanced = class_weights("segmenter.recipe.class_weights=balanced")
    assert balanced == pytest.approx([4, 4 / 3, 1, 0.5, 1])
    root = class_weights("segmenter.recipe.class_weights=sqrt")
    assert [root[0] / root[3], root[1] / root[0], root[4]] == pytest.approx([8**0.5, 3**-0.5, 1])


def test_segformers_recipe_is_the_published_one() -> None:
    settings = segmenter(recipe="adamw").recipe
    assert optimization_of(settings, settings.steps) == Optimization(
        name="adamw", lr=6e-5, weight_decay=0.01, power=1.0, minimum_lr=0.0, warmup=1500, norm_decay=False
    )
    assert settings.head_lr == 10


@pytest.mark.parametrize(
    ("weighting", "counts"),
    [
        ("none", [3, 2, 0, 4, 0]),
        ("threshold", [2 + 0.05, 1 + 0.05, 0, 4, 0]),
        ("continuous", [2 + 12 / 255, 1, 0, 3 + 13 / 255, 0]),
    ],
)
def test_pixels_are_counted_over_all_tiles_as_the_loss_counts_them(
    weighting: Weighting, counts: list[float]
) -> None:
    masks = {0: [[0, 0, 255], [3, 1, 0]], 2: [[3, 3, 3], [255, 255, 1]]}
    weights = {0: [[12, 255, 255], [13, 0, 255]], 2: [[255, 255, 255], [0, 9, 255]]}

    def mask_of(tile: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return np.array(masks[tile.row], dtype=np.uint8), np.array(weights[tile.row], dtype=np.uint8)

    tiles = [Tile("scene", row, 0, 2, 3) for row in masks]
    assert count_classes(tiles, mask_of, 5, weighting) == pytest.approx(counts)
