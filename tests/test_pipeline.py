"""The whole story in real processes: run, run again, kill, go on."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ome.data.scenes import SceneIndex, SceneReader
from ome.data.tags import TagTable
from ome.files import read_csv
from ome.geo.raster import read_class_map, read_png
from ome.stages.all import run_stages
from ome.stages.manifest import Manifest
from ome.stages.provenance import describe_inputs
from ome.stages.reproduce import compare_folders
from tests.conftest import command, compose_config, run_process, tiny

RUN = Path("runs/synthetic_resnet18")
OMP = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of every stage."""
    folder = tmp_path_factory.mktemp("finished")
    done = run_process(folder, *tiny())
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


def results(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder / RUN / "report/results.json").read_text())
    return loaded


def test_the_run_ends_with_a_table_and_a_report(finished: Path) -> None:
    output = (finished / "output.txt").read_text()
    for row in ("CAM", "pseudo mask", "weak segmentation", "pixel-supervised segmentation"):
        assert row in output
    for score in ("mIoU", "mF1", "OA", "building", "of the mIoU"):
        assert score in output
    page = (finished / RUN / "report/report.html").read_text()
    assert page.count("data:image/png;base64,") >= 8
    assert "<h2>Seed and inputs</h2>\n<pre>seed 0</pre>" in page
    assert "http" not in page.replace("http-equiv", "")
    matrix = results(finished)["weak segmentation"]["matrix"]  # type: ignore[index]
    assert sum(map(sum, matrix)) <= 256 * 256
    assert sum(map(sum, matrix)) > 0.9 * 256 * 256  # clutter alone is left out


def test_pseudo_masks_hold_tagged_classes_and_fit_their_tiles(finished: Path) -> None:
    index = SceneIndex.read(finished / "scenes/synthetic_rgb_full")
    table = TagTable.read(finished / RUN / "labels/tags.csv", index.palette.names)
    reader = SceneReader(index)
    for tile, tags in zip(table.tiles, table.tags, strict=True):
        assert set(reader.mask(tile).ravel().tolist()) - {255} == set(tags.nonzero()[0].tolist())
        mask = read_png(finished / RUN / "pseudo/masks" / tile.scene / f"{tile.name}.png")
        assert mask.shape == (tile.height, tile.width)
        assert mask.max() < index.palette.num_classes


def test_predictions_keep_the_scene_grid(finished: Path) -> None:
    import rasterio  # noqa: PLC0415

    scene = finished / "scenes/synthetic_rgb_full/images/2_13.tif"
    for path in (finished / RUN).glob("seg/*/predictions/2_13.tif"):
        with rasterio.open(scene) as image, rasterio.open(path) as map_:
            assert (image.crs, image.transform, image.shape) == (map_.crs, map_.transform, map_.shape)
        assert read_class_map(path).max() <= 4


def test_a_second_run_finds_nothing_to_do(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / RUN).glob("*/manifest.json")}
    again = run_process(finished, *tiny())
    assert again.returncode == 0
    assert again.stdout.count("up to date") == 7
    assert before == {path: path.stat().st_mtime_ns for path in (finished / RUN).glob("*/manifest.json")}


def test_a_run_can_be_reproduced_to_the_byte(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished)
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    overrides = ["stage=reproduce", f"stage.run={RUN}", "logger=none"]
    run_stages(compose_config(overrides), overrides)
    assert before == {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    made = Path("runs/reproduced/reproduce")
    lines = {line["stage"]: line for line in read_csv(made / "reproduction.csv")}
    assert list(lines) == ["prepare", "labels", "cam", "pseudo", "seg", "refine", "report"]
    assert {line["artefacts"] for line in lines.values()} == {"equal"}, lines
    for stage in lines:
        folder = made / "scenes" if stage == "prepare" else made / "run" / stage
        first = Path("scenes/synthetic_rgb_full") if stage == "prepare" else RUN / stage
        names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        names -= {Path("manifest.json"), Path("report.html")}
        assert int(lines[stage]["files"]) == len(names) > 0
        for name in names:
            assert (first / name).read_bytes() == (folder / name).read_bytes(), name
    assert "once more" in capsys.readouterr().out


def test_inputs_are_told_by_content_or_by_time(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"abc")
    config = OmegaConf.create({"seed": 3, "backbone": {"weights": str(weights)}})
    second = 1_000_000_000
    few = Manifest("prepare", "a", {"sources": [["images.zip", 7, 86400 * second]]}, {})
    assert describe_inputs(config, {"prepare": few}).splitlines() == [
        "seed 3",
        "images.zip  7 bytes  changed 1970-01-02 00:00:00 UTC",
        # The digest of "abc" in FIPS 180-2.
        (
            f"backbone.weights={weights}  sha256 "
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        ),
    ]
    many = [[f"{number}.tif", number, second] for number in range(25)]
    told = [
        describe_inputs(config, {"prepare": Manifest("prepare", "a", {"sources": many[:n]}, {})})
        for n in (24, 25)
    ]
    assert "and 5 more; sha256 of the whole list" in told[1]
    assert told[0].count("bytes") == told[1].count("bytes") == 20


def test_what_is_not_equal_is_named(tmp_path: Path) -> None:
    for name, content in (("first", b"abc"), ("second", b"abd")):
        (tmp_path / name / "masks").mkdir(parents=True)
        (tmp_path / name / "masks/a.png").write_bytes(content)
        (tmp_path / name / "same.csv").write_bytes(b"same")
        (tmp_path / name / "manifest.json").write_bytes(content)
    outcome = compare_folders("pseudo", tmp_path / "first", tmp_path / "second")
    assert (outcome.files, outcome.differing) == (2, ["masks/a.png"])
    assert str(outcome) == "1 of 2 differ, the first is masks/a.png"


def kill_when(folder: Path, ready: Callable[[], bool]) -> None:
    """Starts the run and kills it, with its workers, as soon as `ready` says so."""
    process = subprocess.Popen(
        command(*tiny()),
        cwd=folder,
        env=os.environ | OMP,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not ready():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_runs_end_with_the_same_table(finished: Path, tmp_path: Path) -> None:
    kill_when(tmp_path, (tmp_path / RUN / "cam.partial/last.ckpt").exists)
    assert not (tmp_path / RUN / "cam").exists()
    masks = tmp_path / RUN / "pseudo.partial/masks"
    kill_when(tmp_path, lambda: len(list(masks.rglob("[!.]*.png"))) >= 2)
    assert (tmp_path / RUN / "cam/manifest.json").exists()
    assert not (tmp_path / RUN / "pseudo").exists()
    done = run_process(tmp_path, *tiny())
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(tmp_path) == results(finished)
    for path in (finished / RUN / "pseudo").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / path.relative_to(finished)).read_bytes()
