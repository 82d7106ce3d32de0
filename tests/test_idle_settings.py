"""Settings that have no effect are pointed out."""

from pathlib import Path

import pytest

from ome.config.idle_settings import COUNTS_WITH, idle_settings
from tests.conftest import compose_config, forked, tiny

CUSTOM = ("dataset=custom", "dataset.raw=x", "dataset.tags=x.csv")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["segmenter.recipe.momentum=0.5"], "segmenter.recipe.momentum=0.5 has no effect with segmenter."),
        (["segmenter.recipe.momentum=0.5", "segmenter.recipe.optimizer=sgd"], None),
        (["segmenter/recipe=sgd", "segmenter.recipe.momentum=0.5", "segmenter.recipe.power=1"], None),
        (["stage.cam.power=2", "stage.cam.schedule=cosine"], "it counts with stage.cam.schedule=poly"),
        (["segmenter.recipe.underfit_k=1"], "underfit=none: it counts with segmenter.recipe.underfit=pow, c"),
        (["segmenter.recipe.underfit_k=1", "segmenter.recipe.underfit=clamp"], None),
        ([*CUSTOM, "dataset.filter.minimum=0.1"], "dataset.tags=x.csv: it counts with dataset.tags=null"),
        (["dataset=potsdam", "dataset.filter.minimum=0.2", "stage.labels.drops=tile"], None),
        (
            ["stage.predict.simplify=5"],
            "stage.predict.simplify=5 has no effect with stage.predict.polygons=Fal",
        ),
        (["stage.predict.simplify=5", "stage.predict.polygons=true"], None),
        (
            ["prediction.tta=d4", "prediction.flip=false"],
            "prediction.flip=False has no effect with prediction.t",
        ),
        (["logger=csv", "+logger.mode=offline"], "logger.mode=offline has no effect with logger.kind=csv"),
        (["logger=wandb", "logger.mode=offline"], None),
        ([*CUSTOM, "stage.labels.drops=tile"], "stage.labels.drops=tile has no effect with dataset.tags="),
    ],
)
def test_a_setting_without_effect_is_named_with_what_gives_it_one(
    words: list[str], expected: str | None
) -> None:
    config = compose_config(["stage=all", *words])
    lines = list(idle_settings(config, [word.lstrip("+").partition("=")[0] for word in words]))
    assert len(lines) == (expected is not None)
    assert expected is None or expected in lines[0]


def test_both_settings_of_every_rule_exist() -> None:
    config = compose_config(["stage=all", "logger=wandb", *CUSTOM])
    for key, (other, _) in COUNTS_WITH.items():
        for address in (key, other):
            section, _, name = address.rpartition(".")
            place = config
            for part in section.split("."):
                place = place[part]
            assert name in place, address


def test_it_is_said_before_the_first_stage(tmp_path: Path) -> None:
    status, printed = forked(tmp_path, *tiny("prepare"), "segmenter.recipe.underfit_beta=0.3")
    assert status == 0, printed
    said = [line for line in printed.splitlines() if "has no effect" in line]
    assert len(said) == 1
    assert printed.index(said[0]) < printed.index("prepare ->")
