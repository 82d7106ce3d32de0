"""Settings of a wrong type or out of range are named, all at once, before anything runs."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_module
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ome.config import trial_builds
from ome.config.checks import check_settings, type_faults
from ome.config.schema import Settings
from ome.config.schema.hints import addresses
from ome.errors import UserError
from ome.networks import tensors
from ome.pipeline.artifacts import plain
from tests.conftest import CONF, compose_config, forked, tiny

PRECISIONS = "auto, 32-true, 16-mixed or bf16-mixed"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stage.cam.epochs=abc", "a whole number of at least 1, or null"),
        ("stage.cam.epochs=2.5", "a whole number of at least 1, or null"),
        ("stage.cam.batch=0", "a whole number of at least 1"),
        ("stage.affinity.batch=true", "a whole number of at least 1"),
        ("stage.cam.lr=fast", "a number above 0"),
        ("stage.cam.lr=0", "a number above 0"),
        ("stage.cam.momentum=1", "a number of at least 0 and below 1"),
        ("stage.cam.jitter=[0.3]", "a list of 4 numbers of at least 0, the last at most 0.5"),
        ("stage.cam.scale=1.0", "a list of 2 numbers from 0.05 to 16, the smallest first"),
        ("stage.cam.scale=[2.0, 0.5]", "a list of 2 numbers from 0.05 to 16, the smallest first"),
        ("stage.cam.crop=big", "a whole number of at least 1, or null"),
        ("stage.cam.export.flip=maybe", "true or false"),
        ("stage.cam.export.precision=32", PRECISIONS),
        ("stage.cam.export.precision=16-true", PRECISIONS),
        ("stage.affinity.radius=1", "a whole number of at least 2"),
        ("stage.pseudo.mask=both", "crf or cam"),
        ("stage.pseudo.agreement=1.5", "a number from 0 to 1"),
        ("stage.pseudo.response_scales=[]", "a list of one or more numbers above 0"),
        ("stage.ablation.weights=[256]", "a list of whole numbers from 0 to 255"),
        ("stage.seg.targets=[weak, strong]", "a list of one or more values among weak, full"),
        ("stage.refine.scales=[a]", "a list of one or more numbers from 0.05 to 16"),
        ("stage.report.tiles=25", "a whole number from 0 to 24"),
        ("stage.predict.polygons=1", "true or false"),
        ("stage.predict.threads=0", "a whole number of at least 1, or null"),
        ("stage.prepare.broken=ignore", "fail or skip"),
        ("seed=x", "a whole number from 0 to 4,294,967,295"),
        ("segmenter.recipe.steps=ten", "a whole number of at least 1, or null"),
        ("segmenter.recipe.warmup_steps=-1", "a whole number of at least 0, or null"),
        ("segmenter.recipe.optimizer=lion", "sgd or adamw"),
        ("segmenter.recipe.weighting=soft", "none, threshold or continuous"),
        ("segmenter.recipe.ohem=0", "a number above 0 and at most 1, or null"),
        (
            "segmenter.recipe.class_weights=equal",
            "balanced, sqrt or a list of numbers of at least 0, or null",
        ),
        ("segmenter.auxiliary_weight=-1", "a number of at least 0"),
        ("trainer.devices=two", "-1 or a whole number of at least 1"),
        ("trainer.accelerator=tpu", "auto, cpu, gpu or cuda"),
        ("trainer.strategy=fsdp", "auto or ddp"),
        ("trainer.precision=8", PRECISIONS),
        ("trainer.precision=bf16-true", PRECISIONS),
        ("trainer.precision=64-true", PRECISIONS),
        ("backbone.output_stride=4", "8, 16 or 32"),
        ("backbone.freeze=never", "true, false or auto"),
        ("classifier.er_weight=-1", "a number of at least 0"),
        ("classifier.attention=0", "a number above 0, or null"),
        ("crf.iterations=ten", "a whole number of at least 0"),
        ("crf.backend=fast", "lattice, torch, auto or pydensecrf"),
        ("crf.bilateral_srgb=0", "a number from 0.1 to 1e+06"),
        ("crf.gaussian_weight=1e39", "a number from 0 to 1e+06"),
        ("seed=99999999999999999999", "a whole number from 0 to 4,294,967,295"),
        ("stage.cam.batch=99999999999999999999", "a whole number of at least 1"),
        ("prediction.scales=[1e9]", "a list of one or more numbers from 0.05 to 16"),
        ("stage.cam.rescale=[0.75,100]", "a list of 2 numbers from 0.05 to 16, the smallest first"),
        ("prediction.stride=2", "a number above 0 and at most 1"),
        ("dataset.tile.size=0", "a whole number of at least 1"),
        ("dataset.filter.minimum=10", "a number from 0 to 1"),
        ("dataset.channels=[0]", "a list of one or more whole numbers of at least 1, or null"),
        (
            "dataset.split=random",
            (
                "tags or a group of settings: type dataset.split.NAME=VALUE, "
                "with NAME among train, val, test, numeric, folders, absent"
            ),
        ),
        (
            "dataset.tile=128",
            "a group of settings: type dataset.tile.NAME=VALUE, with NAME among size, stride, cover",
        ),
        ("logger.kind=paper", "csv, tensorboard, wandb or none"),
    ],
)
def test_a_wrong_value_is_one_line(override: str, expected: str) -> None:
    config = compose_config([override])
    with pytest.raises(UserError) as caught:
        check_settings(config)
    key = override.partition("=")[0]
    assert str(caught.value) == f"{key}={plain(config, key)}: expected {expected}"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["stage.cam.lr=null"], "stage.cam.lr is not set: expected a number above 0"),
        (["backbone=encoder", "name=a"], "backbone.name is not set: expected text"),
        (["~stage", "+stage.foo=1"], "stage.name is not set: expected text"),
        (["stage.cam.export=null"], "stage.cam.export is not set: expected a group of settings"),
        (
            ["dataset=custom", "dataset.range=[9,1]"],
            "of 2 whole numbers of at least 0, the smallest first, or null",
        ),
        (
            ["dataset=custom", "dataset.classes={road: [0, 0]}"],
            "expected a mapping of names to lists of 3 whole numbers from 0",
        ),
        (["name=${nowhere}"], "name: Interpolation key 'nowhere' not found"),
        (["dataset.resolution=${dataset.resolution}"], "resolution: Recursive interpolation detected"),
        (["crf.backend={_target_:mine.Crf}"], "expected lattice, torch, auto or pydensecrf"),
    ],
)
def test_what_is_missing_or_malformed_is_one_line(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        check_settings(compose_config(overrides))


@pytest.mark.parametrize(
    "beside", ["name=${nowhere}", "dataset.tile.size=${dataset.nowhere}", "dataset.raw=???"]
)
def test_a_value_that_cannot_be_resolved_hides_no_other(beside: str) -> None:
    wrong = ["stage.cam.epochs=abc", "dataset.classes={low.veg: [0, 0]}", "dataset.tile.stride=two", "seed=x"]
    alone = dict(type_faults(compose_config(["dataset=custom", *wrong])))
    faults = dict(type_faults(compose_config(["dataset=custom", *wrong, beside])))
    assert len(alone) == 4
    assert {key: faults.get(key) for key in alone} == alone


def test_an_object_of_the_user_is_left_to_its_class() -> None:
    config = compose_config([])
    recipe = {"_target_": "mine.Recipe", "steps": 5}
    config.segmenter = {"_target_": "mine.Network", "width": 3, "auxiliary_weight": -1, "recipe": recipe}
    assert dict(type_faults(config)) == {
        "segmenter.auxiliary_weight": "segmenter.auxiliary_weight=-1: expected a number of at least 0"
    }


def test_all_wrong_values_are_named_at_once_before_the_first_stage(tmp_path: Path) -> None:
    status, printed = forked(tmp_path, *tiny(), "stage.cam.epochs=abc", "segmenter.recipe.steps=ten")
    assert status == 1
    assert "stage.cam.epochs=abc: expected a whole number" in printed
    assert "segmenter.recipe.steps=ten: expected a whole number" in printed
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_is_of_the_right_types(path: Path) -> None:
    check_settings(compose_config([f"experiment={path.stem}"]))


def _keys(node: DictConfig, above: str = "") -> Iterator[str]:
    """Every key below a node that holds settings or values."""
    for key in node:
        yield f"{above}{key}"
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            yield from _keys(node[key], f"{above}{key}.")


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("stage.cam.lr", "stage.cam.lr="),
        ("stage.cam.export.w", "stage.cam.export.write="),
        ("dataset=custom dataset.m", "dataset.masks="),
        ("segmenter.recipe.warm", "segmenter.recipe.warmup_steps="),
        ("backbone=mit", "backbone=mit_b0"),
    ],
)
def test_the_shell_completes_keys_and_options(typed: str, key: str) -> None:
    with initialize_config_module("ome.conf", version_base="1.3"):
        completion = BashCompletion(GlobalHydra.instance().config_loader())
        assert completion._query("config", typed) == [key]


CHOSEN: tuple[list[str], ...] = (
    [],
    *([f"dataset={name}"] for name in ("custom", "flair", "openearthmap")),
    ["logger=wandb"],
)


@pytest.fixture(scope="module")
def keys() -> list[set[str]]:
    """The settings there are with each choice."""
    return [set(_keys(compose_config(chosen))) for chosen in CHOSEN]


def test_every_typed_setting_exists(keys: list[set[str]]) -> None:
    for address, _ in addresses(Settings):
        assert any(address in there for there in keys), address


def test_every_setting_of_the_package_has_a_type(keys: list[set[str]]) -> None:
    typed = [address for address, _ in addresses(Settings)]  # those with a meaning
    without = {"callbacks", "classifier.name", "preset", "stage.suggest"}
    for key in set().union(*keys) - without:
        assert any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in typed), key


def test_a_check_says_nothing_of_the_weights_it_loads(caplog: pytest.LogCaptureFixture) -> None:
    """A sweep is checked where Hydra shows every line that is logged."""
    caplog.set_level("INFO")
    assert trial_builds._faults(lambda: tensors.logger.info("loaded")) == []
    assert not caplog.records
    tensors.logger.info("loaded")
    assert len(caplog.records) == 1
