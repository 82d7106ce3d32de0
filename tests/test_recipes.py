"""What a recipe says of the loss: ranges, and class weights from the training masks."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ome.config.recipes import count_classes, recipe_settings
from ome.data.tiles import Tile
from ome.errors import UserError
from tests.conftest import compose_config


def settings(*overrides: str, recipe: str = "sgd") -> dict[str, Any]:
    composed = compose_config(["dataset=potsdam", f"segmenter/recipe={recipe}", *overrides])
    return recipe_settings(composed.segmenter.recipe, 5, lambda: [10, 30, 0, 80, 0])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("label_smoothing=1", r"segmenter\.recipe\.label_smoothing=1: give 0"),
        ("ohem=0", r"segmenter\.recipe\.ohem=0: give the share"),
        ("dice=-1", r"segmenter\.recipe\.dice=-1"),
        ("validation_tiles=-1", r"segmenter\.recipe\.validation_tiles=-1: give 0"),
        ("lovasz=-0.5", r"segmenter\.recipe\.lovasz=-0\.5"),
        ("warmup_steps=20000", r"warmup_steps=20000 is all of segmenter\.recipe\.steps=20000"),
        ("class_weights=even", r"class_weights=even: give null, balanced or a list"),
        ("class_weights=[1,2]", r"class_weights=\[1\.0, 2\.0\]: give 5 numbers from 0"),
        ("class_weights=[1,1,1,1,-1]", "give 5 numbers from 0"),
    ],
)
def test_values_out_of_range_are_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        settings(f"segmenter.recipe.{override}")
    assert "\n" not in str(raised.value)


def test_class_weights_are_balanced_given_or_none() -> None:
    assert settings()["class_weights"] is None
    given = settings("segmenter.recipe.class_weights=[1,2,3,4,5]")
    assert given["class_weights"] == [1, 2, 3, 4, 5]
    balanced = settings("segmenter.recipe.class_weights=balanced")
    assert balanced["class_weights"] == pytest.approx([4, 4 / 3, 1, 0.5, 1])


def test_segformers_recipe_is_the_published_one() -> None:
    made = settings(recipe="adamw")
    published = {"optimizer": "adamw", "lr": 6e-5, "weight_decay": 0.01, "power": 1.0, "minimum_lr": 0.0}
    published |= {"warmup_steps": 1500, "head_lr": 10.0, "norm_decay": False}
    assert {key: made[key] for key in published} == published


def test_pixels_are_counted_over_all_tiles() -> None:
    masks = {0: [[0, 0, 255], [3, 1, 0]], 2: [[3, 3, 3], [255, 255, 1]]}

    def mask_of(tile: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        mask = np.array(masks[tile.row], dtype=np.uint8)
        return mask, mask

    tiles = [Tile("scene", row, 0, 2, 3) for row in masks]
    assert count_classes(tiles, mask_of, 5) == [3, 2, 0, 4, 0]
