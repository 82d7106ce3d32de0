"""`ome` and `ome doctor`."""

import sys
from pathlib import Path

import pytest
import rasterio

from ome.cli import doctor
from ome.extras import EXTRAS
from tests.conftest import compose_config, forked, tiny
from tests.test_maps import random_scene, write

IMAGES = "dataset=custom dataset.raw=raw"
LONG = "long" * 75


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(text: str, kind: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(kind)]


def test_a_machine_without_data_can_make_the_town(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert f"ok    python     {sys.version.split()[0]}" in printed
    assert f"rasterio {rasterio.__version__}" in printed
    assert "synthetic is drawn when it is prepared" in printed
    assert "nothing is wrong" in printed


def test_data_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    split = compose_config(["dataset=potsdam", "dataset.raw=raw"]).dataset.split
    scenes = [*split.train, *split.test]
    assert doctor.main(["dataset=potsdam", "dataset.raw=raw"]) == 1
    assert "found none of raw/3_Ortho_IRRG.zip" in lines(capsys.readouterr().out, "wrong")[0]
    for scene in scenes[1:]:
        for name in (f"top_potsdam_{scene}_IRRG.tif", f"top_potsdam_{scene}_label.tif"):
            (tmp_path / "raw" / name).touch()
    assert doctor.main(["dataset=potsdam", "dataset.raw=raw"]) == 1
    images, masks = lines(capsys.readouterr().out, "wrong")
    assert "36 of 37 images in raw; missing: 2_10" in images
    assert "36 of 37 masks in raw; missing: 2_10" in masks
    assert doctor.main(["dataset=potsdam", "dataset.raw=raw", f"dataset.split.train={scenes[1:3]}"]) == 0


def test_images_of_ones_own_need_no_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "raw").mkdir(exist_ok=True)
        write(tmp_path / "raw" / f"{name}.tif", random_scene(20, 20))
    (tmp_path / "tags.csv").write_text("image,tags\na.tif,road\n")
    overrides = ["dataset=custom", "dataset.raw=raw", "dataset.tags=tags.csv"]
    assert doctor.main(overrides) == 0
    assert "2 of 2 images in raw" in capsys.readouterr().out
    assert doctor.main(overrides[:2]) == 1
    assert "dataset.tags is not set" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.module"])
def test_extras_that_are_not_installed_are_named(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXTRAS, "sweep", (module,))
    assert doctor.main([]) == 0
    line = f'note  extra      sweep: without {module}: pip install "ome[sweep]"'
    assert line in lines(capsys.readouterr().out, "note")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset=atlantis", "unknown option dataset=atlantis"),
        ("dataset.rraw=x", "unknown setting dataset.rraw: did you mean dataset.raw?"),
        ("dataset=potsdam", "dataset.raw is not set"),
        ("stage.cam.epochs=-1", "stage.cam.epochs=-1: expected"),
        ("--config-dir=mine dataset=torn", "torn.yaml, line 2, column 1 is not YAML: "),
        (f"{IMAGES} dataset.tags={LONG}", f"{LONG} (File name too long): give"),
        (f"dataset=custom dataset.tags=t.csv dataset.raw={LONG}", f"{LONG} (File name too long): give"),
        (f"{IMAGES} dataset.tags=t.csv dataset.raw=t.csv/raw", "t.csv/raw does not exist"),
        (f"{IMAGES} dataset.tags=t.csv dataset.classes=3", "dataset.classes=3: expected"),
        (f"{IMAGES} dataset.tags=t.csv scenes=[a]", "scenes=['a']: expected"),
        (f"{IMAGES} dataset.tags=t.csv dataset.raw=~/none", f"{Path.home()}/none does not exist"),
        ("runs/0_seed=0", "runs/0_seed=0 is not the folder of a run"),
    ],
)
def test_mistakes_are_lines_of_the_report(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("mine/dataset", "raw", "runs/0_seed=0"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / "raw/a.tif", random_scene(20, 20))
    (tmp_path / "mine/dataset/torn.yaml").write_text("classes: [a\n")
    (tmp_path / "t.csv").write_text("image,tags\na.tif,road\n")
    assert doctor.main(override.split()) == 1
    report = capsys.readouterr().out
    assert message in lines(report, "wrong")[0]
    assert lines(report, "ok")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_says_what_can_be_typed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([word]) == 0
    assert "usage: ome doctor [RUN] [KEY=VALUE ...]" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["mine", "Cote d'Azur, (1)", "my conf"])
def test_settings_of_ones_own_are_found_in_a_folder_of_any_name(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder / "dataset").mkdir(parents=True)
    (tmp_path / folder / "dataset/hamlet.yaml").write_text("defaults: [synthetic]\nname: hamlet\n")
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["dataset=hamlet", f"--config-dir={folder}"]) == 0
    assert "none prepared in scenes/hamlet_rgb_full" in capsys.readouterr().out


def test_the_folder_of_a_run_stands_for_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a dataset in a folder of the user's, and relative paths, from any working folder.

    What is printed is right from where the user stands.
    """
    (work := tmp_path / "work").mkdir()
    (work / "mine/dataset").mkdir(parents=True)
    (work / "mine/dataset/hamlet.yaml").write_text("defaults: [synthetic]\nname: hamlet\n")
    status, printed = forked(work, "--config-dir=mine", *tiny("prepare"), "dataset=hamlet", "name=here")
    assert status == 0, printed
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["work/runs/here"]) == 0
    report = capsys.readouterr().out
    assert f"prepared in {work / 'scenes/hamlet_rgb_full'}" in report
    run = work / "runs/here"
    for folder, name in (
        ("seg", "manifest.json"),
        ("labels", "manifest.json"),
        ("cam.partial", ".fingerprint"),
    ):
        (run / folder).mkdir()
        (run / folder / name).touch()
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["work/runs/here"]) == 0
    report = capsys.readouterr().out
    assert f"{run}: finished are labels, seg" in report
    assert f"{run}: unfinished are cam: ome resume {run}" in report
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["nowhere"]) == 1
    assert "nowhere does not exist: give the folder of a run" in capsys.readouterr().out
