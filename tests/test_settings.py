"""Settings of a wrong type or out of range are named, all at once, before anything runs."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ome.config.checks import check_settings
from ome.config.schema import SCHEMA
from ome.errors import UserError
from tests.conftest import compose_config, forked, tiny

CONF = Path(__file__).parents[1] / "conf"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stage.cam.epochs=abc", "a whole number of at least 1"),
        ("stage.cam.epochs=2.5", "a whole number of at least 1"),
        ("stage.cam.batch=0", "a whole number of at least 1"),
        ("stage.affinity.batch=true", "a whole number of at least 1"),
        ("stage.cam.lr=fast", "a number above 0"),
        ("stage.cam.lr=0", "a number above 0"),
        ("stage.cam.jitter=[0.3]", "a list of 4 numbers"),
        ("stage.cam.scale=1.0", "a list of 2 numbers"),
        ("stage.cam.crop=big", "a whole number of at least 1 or null"),
        ("stage.cam.export.flip=maybe", "true or false"),
        ("stage.refine.scales=[a]", "a list of numbers"),
        ("stage.predict.polygons=1", "true or false"),
        ("seed=x", "a whole number"),
        ("segmenter.recipe.steps=ten", "a whole number of at least 1"),
        ("trainer.devices=two", "a whole number"),
    ],
)
def test_a_wrong_value_is_one_line(override: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        check_settings(compose_config([override]))
    key, _, value = override.partition("=")
    shown = {"[0.3]": "[0.3]", "true": "True", "[a]": "['a']"}.get(value, value)
    assert str(caught.value) == f"{key}={shown}: expected {expected}"


def test_all_wrong_values_are_named_at_once_before_the_first_stage(tmp_path: Path) -> None:
    status, printed = forked(tmp_path, *tiny(), "stage.cam.epochs=abc", "segmenter.recipe.steps=ten")
    assert status == 1
    assert "stage.cam.epochs=abc: expected a whole number" in printed
    assert "segmenter.recipe.steps=ten: expected a whole number" in printed
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_is_of_the_right_types(path: Path) -> None:
    check_settings(compose_config([f"experiment={path.stem}"]))


@pytest.mark.parametrize("address", SCHEMA)
def test_every_typed_setting_exists(address: str) -> None:
    config = compose_config(["stage=all"])
    part = OmegaConf.select(config, address) if address else config
    for name in SCHEMA[address].__dataclass_fields__:
        assert name in part, f"{address}.{name}"
