"""Presets: which one a command takes, and what they set."""

from pathlib import Path

import openpyxl
import pytest
from omegaconf import OmegaConf

from ome.cli.commands import quoted
from ome.cli.presets import fitting_preset
from ome.config.checks import check_settings
from ome.data.tiles import automatic_steps
from tests.conftest import CONF, compose_config

CUSTOM = ["dataset=custom", "dataset.raw=x", "dataset.tags=x.csv"]


@pytest.mark.parametrize(
    ("words", "gpu", "chosen"),
    [
        (["stage=all"], False, ["preset=laptop"]),
        (["stage=all"], True, []),
        (["stage=all", "trainer=cpu"], True, ["preset=laptop"]),
        (["stage=all", "trainer.accelerator=cpu"], True, ["preset=laptop"]),
        (["stage=all", "trainer=ddp_cpu"], True, ["preset=laptop"]),
        (["stage=all", "++trainer.accelerator='cpu'"], True, ["preset=laptop"]),
        (["stage=all", "trainer=no_such"], False, ["preset=laptop"]),
        (["stage=all", "preset=paper"], False, []),
        (["stage=all", "experiment=ome_potsdam"], False, []),
        (["--help"], False, []),
        (["-m", "stage=cam", "seed=0,1"], False, ["preset=laptop"]),
    ],
)
def test_a_command_without_preset_takes_the_one_that_fits(
    words: list[str], gpu: bool, chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\n{'echo Card, 80 GiB' if gpu else 'exit 9'}\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fitting_preset(words) == chosen


def write_table(path: Path, rows: int) -> Path:
    lines = [("image", "tags"), *[("a.png", "road")] * rows]
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for line in lines:
            book.active.append(line)  # type: ignore[union-attr]
        book.save(path)
    else:
        path.write_text("".join(f"{','.join(line)}\n" for line in lines))
    return path


@pytest.mark.parametrize(("rows", "preset"), [(3, "few"), (100, "few"), (101, "laptop")])
@pytest.mark.parametrize("name", ["tags.csv", "tags.xlsx"])
def test_few_tagged_images_have_a_preset_of_their_own(
    rows: int, preset: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_table(tmp_path / name, rows)
    monkeypatch.setenv("PATH", "")  # no driver of a GPU
    words = ["dataset=custom", f"dataset.tags={table}"]
    assert fitting_preset(words) == [f"preset={preset}"]
    assert fitting_preset([*words, "preset=gpu"]) == []


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=custom", "dataset.tags={tags}"],
        ["dataset=custom", "++dataset.tags={tags}"],
        ["dataset=custom", "dataset.raw={raw}", "dataset.tags=${{dataset.raw}}/tags.csv"],
        ["--config-dir={conf}", "dataset=mine"],
        ["--config-dir", "{conf}", "-m", "dataset=mine,loveda", "seed=0,1"],
        ["-m", "dataset=custom", "dataset.tags={tags},x.csv"],
    ],
)
def test_the_table_is_counted_that_the_command_reads(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "Cote d'Azur, (1)"
    conf = raw / "my conf"
    (conf / "dataset").mkdir(parents=True)
    own = {"defaults": ["custom"], "name": "mine", "tags": str(raw / "tags.csv")}
    OmegaConf.save(own, conf / "dataset/mine.yaml")
    paths = {"raw": quoted(raw), "tags": quoted(raw / "tags.csv"), "conf": conf}
    monkeypatch.setenv("PATH", "")  # no driver of a GPU
    for rows, preset in ((3, "few"), (101, "laptop")):
        write_table(raw / "tags.csv", rows)
        assert fitting_preset([word.format(**paths) for word in words]) == [f"preset={preset}"]


def test_presets_are_short_and_can_train() -> None:
    names = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))
    assert names == ["few", "gpu", "laptop", "paper", "quick"]
    steps = {}
    for name in names:
        assert len((CONF / f"preset/{name}.yaml").read_text().splitlines()) <= 20
        config = compose_config([*CUSTOM, f"preset={name}", "backbone.weights=null"])
        check_settings(config, ["cam", "pseudo", "seg"])
        recipe = config.segmenter.recipe
        steps[name] = [recipe.steps or automatic_steps(tiles, recipe.batch) for tiles in (500, 10**6)]
    assert [*steps] == names
    assert steps["quick"] < steps["few"] < steps["laptop"] < steps["gpu"] < steps["paper"]
    assert (steps["gpu"], steps["paper"]) == ([400, 20000], [20000, 20000])


def test_the_published_method_is_that_of_the_experiments() -> None:
    preset = compose_config([*CUSTOM, "preset=paper"])
    experiment = compose_config(["experiment=ome_potsdam", "dataset.raw=x"])
    assert (preset.stage.labels.drops, experiment.stage.labels.drops) == ("tile", "tile")
    for key in ("backbone", "classifier", "segmenter", "crf"):
        assert OmegaConf.to_container(preset[key]) == OmegaConf.to_container(experiment[key]), key


def test_an_empty_range_is_left_to_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no driver of a GPU
    assert fitting_preset(["-m", "stage=cam", "seed=range(5,5)"]) == ["preset=laptop"]
