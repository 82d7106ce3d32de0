"""The whole story in real processes: run, run again, kill, go on."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ome.data.scenes import SceneIndex, SceneReader
from ome.data.tags import TagTable
from ome.geo.raster import read_class_map, read_png
from ome.stages.all import run_stages
from ome.stages.predict import read_card
from ome.stages.trained import CARD, SegmenterCard
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


def test_any_scene_can_be_mapped(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the latest segmenter, also of a run from before there were cards; the test scene as `seg` does."""
    monkeypatch.chdir(finished)
    scene = "stage.scene=scenes/synthetic_rgb_full/images/2_13.tif"
    for network, folder in (("null", "refine/round_1"), ("weak", "seg/weak")):
        overrides = [*tiny("predict"), scene, f"stage.network={network}"]
        run_stages(compose_config(overrides), overrides)
        expected = read_class_map(RUN / folder / "predictions/2_13.tif")
        np.testing.assert_array_equal(read_class_map(RUN / "predict/2_13/2_13.tif"), expected)
        card = SegmenterCard.read(RUN / folder)
        (RUN / folder / CARD).rename(finished / "card.json")
        config = compose_config(overrides)
        assert read_card(config, RUN / folder) == card
        (finished / "card.json").rename(RUN / folder / CARD)
    assert (card.segmenter, card.encoder, card.channels, card.tile) == ("fpn", "resnet18", (1, 2, 3), 64)
    assert list(card.classes) == ["impervious_surface", "building", "low_vegetation", "tree", "car"]
    assert card.pixel_size == pytest.approx(0.25, rel=1e-3)


def test_a_second_run_finds_nothing_to_do(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / RUN).glob("*/manifest.json")}
    again = run_process(finished, *tiny())
    assert again.returncode == 0
    assert again.stdout.count("up to date") == 7
    assert before == {path: path.stat().st_mtime_ns for path in (finished / RUN).glob("*/manifest.json")}


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
