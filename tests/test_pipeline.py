"""The whole story in real processes: run, run again, kill, go on."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ome.data.scenes import SceneIndex, SceneReader
from ome.data.tags import TagTable
from ome.geo.raster import read_class_map, read_png
from ome.training.seam import SeamClassifier
from tests.conftest import forked, tiny

RUN = Path("runs/synthetic_resnet18")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of every stage."""
    folder = tmp_path_factory.mktemp("finished")
    status, printed = forked(folder, *tiny())
    assert status == 0, printed
    (folder / "output.txt").write_text(printed)
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


def test_a_second_run_finds_nothing_to_do(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / RUN).glob("*/manifest.json")}
    status, printed = forked(finished, *tiny())
    assert status == 0, printed
    assert printed.count("up to date") == 7
    assert before == {path: path.stat().st_mtime_ns for path in (finished / RUN).glob("*/manifest.json")}


KILLS = {
    "prepare": "2_11.tif",
    "labels": "labels.json",
    "cam": "2_10_00000_00128.npz",
    "pseudo": "2_10_00000_00128.png",
    "seg": "2_13.tif",
    "refine": "network.pt",
    "report": "results.md",
}
"""The file at which each stage is killed: written, but not yet moved to its place."""


def kill_at(name: str) -> None:
    """Makes this process end by SIGKILL when it is about to finish a file of that name."""
    replace = Path.replace

    def killing(path: Path, target: Path) -> Path:
        if target.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = killing  # type: ignore[assignment,method-assign]


def terminate_at_step(wanted: int) -> None:
    """Makes this process receive SIGTERM in the middle of a training step of the classifier."""
    step = SeamClassifier.training_step

    def terminating(module: SeamClassifier, *args: Any) -> Tensor:  # noqa: ANN401
        if module.global_step == wanted:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(module, *args)

    SeamClassifier.training_step = terminating  # type: ignore[assignment,method-assign]


def artefacts(folder: Path) -> dict[str, bytes]:
    """Every file that a run leaves but for logs, and manifests and reports, which tell the time."""
    timed = ("manifest.json", "report.html", "files.csv")
    return {
        str(path.relative_to(folder)): b"" if path.name in timed else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "logs" not in path.parts and not path.name.startswith((".", "output"))
    }


def test_a_run_stopped_in_every_stage_ends_with_the_same_artefacts(finished: Path, tmp_path: Path) -> None:
    for stage, name in KILLS.items():
        until = [*tiny(), f"stage.until={stage}"]
        if stage == "cam":  # in the middle of the second of three epochs
            status, printed = forked(tmp_path, *until, sabotage=partial(terminate_at_step, 8))
            assert status == 143, printed
            assert printed.splitlines()[-1] == "error: terminated; the same command goes on where it stopped"
            assert "Traceback" not in printed
            kept = torch.load(tmp_path / RUN / "cam.partial/last.ckpt", weights_only=True)
            assert kept["global_step"] == 9
        status, printed = forked(tmp_path, *until, sabotage=partial(kill_at, name))
        assert status == -signal.SIGKILL, f"{stage}: {printed}"
        if stage == "cam":
            assert "going on after step 9 of an interrupted run" in printed
        place = tmp_path / ("scenes/synthetic_rgb_full" if stage == "prepare" else RUN / stage)
        assert not place.exists()
    status, printed = forked(tmp_path, *tiny())
    assert status == 0, printed
    assert results(tmp_path) == results(finished)
    made, expected = artefacts(tmp_path), artefacts(finished)
    assert made.keys() == expected.keys()
    assert [name for name in made if made[name] != expected[name]] == []


def test_two_processes_leave_what_one_leaves(finished: Path, tmp_path: Path) -> None:
    # With the networks of one process, what they map can be compared; the last one is trained by two.
    for stage, inside in (("cam", "."), ("seg", "weak"), ("seg", "full")):
        made = tmp_path / RUN / f"{stage}.partial" / inside
        made.mkdir(parents=True)
        manifest = json.loads((finished / RUN / stage / "manifest.json").read_text())
        (tmp_path / RUN / f"{stage}.partial/.fingerprint").write_text(manifest["fingerprint"])
        for name in ("network.pt", "history.csv"):
            shutil.copy(finished / RUN / stage / inside / name, made / name)
    overrides = [override for override in tiny() if override != "trainer=cpu"]
    status, printed = forked(tmp_path, *overrides, "trainer=ddp_cpu")
    assert status == 0, printed
    assert printed.count("done ") == 7
    made, expected = artefacts(tmp_path), artefacts(finished)
    assert made.keys() == expected.keys()
    for stage in ("labels", "cam", "pseudo", "seg", "refine", "report"):
        manifests = [
            json.loads((run / RUN / stage / "manifest.json").read_text()) for run in (tmp_path, finished)
        ]
        assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]
        assert manifests[0]["files"] == manifests[1]["files"]
    assert made[str(RUN / "labels/tags.csv")] == expected[str(RUN / "labels/tags.csv")]
    two, one = results(tmp_path), results(finished)
    assert two.keys() == one.keys()
    for row in ("CAM", "pseudo mask", "weak segmentation", "pixel-supervised segmentation"):
        matrices = [np.array(found[row]["matrix"]) for found in (two, one)]  # type: ignore[index]
        # The same pixels are scored, and next to none falls otherwise.
        np.testing.assert_array_equal(matrices[0].sum(axis=1), matrices[1].sum(axis=1))
        assert np.abs(matrices[0] - matrices[1]).sum() <= 0.002 * matrices[1].sum()
    configs = list((tmp_path / RUN / "logs").glob("*/config/config.yaml"))
    assert len(configs) == 1
