"""The table of pseudo-mask variants: by hand, as figures, and from a whole run on the town."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ome.cli.launch import launch
from ome.cli.runner import selected_stages
from ome.config.sections import settings_of
from ome.data.cams import read_cams
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.errors import UserError
from ome.files import read_csv
from ome.geo.raster import read_png
from ome.pipeline.layout import cam_path, mask_path
from ome.plots.ablation_figures import bars_figure, calibration_figure, thresholds_figure
from ome.pseudo.variants import mask_variants
from ome.report.tile_quality import pseudo_mask_quality, weight_errors
from ome.scoring.confusion import confusion_matrix
from ome.scoring.rows import read_rows
from ome.scoring.thresholds import ThresholdCurves, threshold_counts
from tests.conftest import compose_config, tiny
from tests.test_uncertainty import SwapsLast

RUN = Path("runs/synthetic_tu-test_resnet")


def one_scene(stage: str = "all") -> list[str]:
    """A tiny run on one scene, whose maps a random walk moves."""
    return [*tiny(stage), "dataset.split.train=['2_10']"]


def test_variants_by_hand() -> None:
    # The last pixel is disputed: class 1 in the CAM, class 0 after the CRF. Scaled, .6 beats .5 four times of
    # six, and .5 beats .6 once: the variance is 8/36, the largest of the tile.
    maps = np.array([[[0.9, 0.1, 0.5]], [[0.1, 0.9, 0.6]]], np.float32)
    variants = mask_variants(SwapsLast(), maps, "CAM", (0.5, 0.75, 1, 1.25, 1.5, 1.75), [1.0, 0.3], [28, 113])
    np.testing.assert_array_equal(variants.crf, [[0, 1, 0]])
    assert {name: level.tolist() for name, level in variants.levels.items()} == {
        "weight": [[255, 255, 0]],
        "absolute weight": [[255, 255, 28]],
        "both argmaxes agree": [[1, 1, 0]],
    }
    # The background of the last pixel is .4 or .4 ** .3 = .76; the CRF swaps it with class 0.
    assert {name: mask.tolist()[0] for name, mask in variants.masks.items()} == {
        "CAM argmax": [0, 1, 1],
        "CAM argmax, background alpha 1": [0, 1, 1],
        "CAM argmax, background alpha 0.3": [0, 1, 255],
        "CAM + CRF": [0, 1, 0],
        "CAM + CRF, background alpha 1": [0, 1, 1],
        "CAM + CRF, background alpha 0.3": [0, 1, 0],
        "CAM + CRF, weight >= 28": [0, 1, 255],
        "CAM + CRF, weight >= 113": [0, 1, 255],
        "CAM + CRF, absolute weight >= 28": [0, 1, 0],
        "CAM + CRF, absolute weight >= 113": [0, 1, 255],
        "CAM + CRF, both argmaxes agree": [0, 1, 255],
    }


def test_figures_show_the_numbers() -> None:
    axes = bars_figure({"argmax": 0.25, "CRF": 0.5, "none": float("nan")}, ["CRF"]).axes[0]
    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [
        [25, pytest.approx(np.nan, nan_ok=True)],
        [50],
    ]
    assert [text.get_text() for text in axes.texts] == ["25.0", "50.0", "–"]  # noqa: RUF001 - a dash for no value
    maps = np.array([[[0.2, 0.6, 0.6, 0.9]], [[0.0, 0.0, 0.0, 0.0]]], dtype=np.float32)
    curves = ThresholdCurves(threshold_counts(maps, np.array([[5, 0, 5, 0]], np.uint8)), ("tree", "car"))
    charts = thresholds_figure(curves).axes
    assert [chart.get_title() for chart in charts] == ["tree: 66.7 at 0.21", "car"]
    assert charts[0].lines[0].get_ydata()[60] == pytest.approx(200 / 3)
    counts = np.zeros((256, 2), dtype=np.int64)
    counts[0], counts[255] = (1, 3), (10, 2)
    axes = calibration_figure({"weight": counts, "nothing": np.zeros_like(counts)}).axes[0]
    assert [bar.get_height() for bar in axes.containers[0]] == [75, pytest.approx(100 / 6)]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0\n25.0 %", "255\n75.0 %"]


def test_the_stage_runs_when_asked_for_and_settings_hold_in_both_ways() -> None:
    asked = compose_config(["experiment=ablation"])
    assert selected_stages(asked) == ["prepare", "labels", "cam", "affinity", "pseudo", "ablation"]
    assert "ablation" not in selected_stages(compose_config(["stage=all"]))
    alone = settings_of(compose_config(["experiment=ablation", "stage=ablation"]), "ablation")
    assert alone.stage == settings_of(asked, "ablation").stage


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `experiment=ablation` in which all training tiles take part."""
    folder = tmp_path_factory.mktemp("finished")
    overrides = [*one_scene(), "experiment=ablation", "stage.cam.epochs=1", "stage.ablation.tiles=999"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        launch(compose_config(overrides))
    return folder


def counts_of(folder: Path, rows: str) -> dict[str, np.ndarray]:
    return {row.name: row.scores.matrix for row in read_rows(folder / RUN / rows)}


def test_rows_are_those_of_the_stages_on_the_same_tiles(finished: Path) -> None:
    assert not (finished / RUN / "seg").exists()
    ablation = counts_of(finished, "ablation")
    np.testing.assert_array_equal(ablation["CAM argmax"], counts_of(finished, "cam")["CAM"])
    np.testing.assert_array_equal(ablation["CAM + CRF"], counts_of(finished, "pseudo")["pseudo mask"])
    walked = counts_of(finished, "affinity")["CAM + random walk"]
    np.testing.assert_array_equal(ablation["CAM + random walk argmax"], walked)
    assert not np.array_equal(walked, ablation["CAM argmax"])
    table = read_csv(finished / RUN / "ablation/ablation.csv")
    assert [row[""] for row in table] == list(ablation)
    assert len(table) == 2 * (1 + 3 + 1 + 3 + 2 * 3 + 1)
    assert [name.replace(" + random walk", "") for name in list(ablation)[15:]] == list(ablation)[:15]
    assert (finished / RUN / "ablation/thresholds_affinity.png").exists()


def test_kept_pixels_thresholds_and_errors_equal_those_of_the_files(finished: Path) -> None:
    index = SceneIndex.read(finished / "scenes/synthetic_rgb_full")
    reader, names = SceneReader(index), index.palette.names
    tiles = TagTable.read(finished / RUN / "labels/tags.csv", names).select("train", tagged=True).tiles
    pseudo = finished / RUN / "pseudo"
    masks, weights, cams, references = (
        np.stack(arrays)
        for arrays in (
            [read_png(mask_path(pseudo, "masks", tile)) for tile in tiles],
            [read_png(mask_path(pseudo, "weights", tile)) for tile in tiles],
            [read_cams(cam_path(finished / RUN / "cam", tile), len(names)) for tile in tiles],
            [reader.mask(tile) for tile in tiles],
        )
    )
    counted = references != 255
    shares = {row[""]: row["pixels"] for row in read_csv(finished / RUN / "ablation/ablation.csv")}
    for least in (28, 113, 255):
        certain = counted & (weights >= least)
        name = f"CAM + CRF, weight >= {least}"
        assert shares[name] == f"{100 * certain.sum() / counted.sum():.2f}"
        expected = confusion_matrix(masks[certain], references[certain], len(names))
        np.testing.assert_array_equal(counts_of(finished, "ablation")[name], expected)
    for row in read_csv(finished / RUN / "ablation/calibration_cam.csv"):
        if row["criterion"] == "weight":
            there = counted & (weights == int(row["level"]))
            assert int(row["pixels"]) == there.sum()
            wrong = (masks != references)[there].mean()
            assert float(row["error rate"]) == pytest.approx(100 * wrong, abs=0.006)
    best = read_csv(finished / RUN / "ablation/best_thresholds.csv")
    best, walked = best[: len(best) // 2], best[len(best) // 2 :]
    assert {row["stage"] for row in walked} == {"affinity"}
    assert [row["class"] for row in best] == [
        name for name in names if (references == names.index(name)).any()
    ]
    for row in best:
        of_class = references == names.index(row["class"])
        predicted = (cams[:, names.index(row["class"])] >= np.float32(row["threshold"])) & counted
        iou = 100 * (of_class & predicted).sum() / (of_class | predicted).sum()
        assert float(row["IoU"]) == pytest.approx(iou, abs=0.006)


def test_the_report_shows_the_variants_of_a_run_that_went_no_further(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    launch(compose_config(one_scene("report")))
    page = (RUN / "report/report.html").read_text()
    for row in read_csv(RUN / "ablation/ablation.csv"):
        assert all(f"<td>{text}</td>" in page for text in list(row.values())[1:])
    # Errors by weight are those of the ablation, which counted the same pixels as the pseudo masks' files.
    errors = weight_errors(RUN / "ablation", "cam")["weight"]
    reader = SceneReader(SceneIndex.read(finished / "scenes/synthetic_rgb_full"))
    tiles = (
        TagTable.read(RUN / "labels/tags.csv", reader.index.palette.names).select("train", tagged=True).tiles
    )
    expected = pseudo_mask_quality(RUN / "pseudo", reader, tiles).errors
    np.testing.assert_array_equal(errors.sum(axis=1), expected.sum(axis=1))
    np.testing.assert_allclose(errors, expected, atol=0.0001 * expected.sum())
    assert f"<td>{100 * errors[255, 1] / errors[255].sum():.1f} % (" in page
    assert 'id="ablation"' in page
    assert 'id="maps"' not in page


def test_the_stage_pseudo_ignores_what_the_background_wins(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    overrides = [
        *one_scene("pseudo"),
        "stage.pseudo.mask=cam",
        "stage.pseudo.background=1",
        "name=other",
        f"inherit={RUN}",
    ]
    launch(compose_config(overrides))
    reader = SceneReader(SceneIndex.read(finished / "scenes/synthetic_rgb_full"))
    names = reader.index.palette.names
    expected = np.zeros((len(names), len(names)), dtype=np.int64)
    pixels = 0
    for tile in TagTable.read(RUN / "labels/tags.csv", names).select("train", tagged=True).tiles:
        cams, mask = read_cams(cam_path(RUN / "cam", tile), len(names)), reader.mask(tile)
        background = 1 - cams.max(axis=0) > cams.max(axis=0)
        written = read_png(mask_path(Path("runs/other/pseudo"), "masks", tile))
        np.testing.assert_array_equal(written == 255, background)
        np.testing.assert_array_equal(written[~background], cams.argmax(axis=0)[~background])
        expected += confusion_matrix(written, np.where(background, np.uint8(255), mask), len(names))
        pixels += int((mask != 255).sum())
    (row,) = read_rows(Path("runs/other/pseudo"))
    np.testing.assert_array_equal(row.scores.matrix, expected)
    assert row.fraction == expected.sum() / pixels < 1
    assert row.where == f"train tiles, {100 * expected.sum() / pixels:.1f} % of the pixels"


@pytest.mark.slow
def test_the_walk_may_be_left_out_or_must_be_there(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    overrides = [*one_scene("ablation"), "stage.ablation.tiles=1", "name=plain", f"inherit={RUN}"]
    launch(compose_config(overrides))
    assert len(read_rows(Path("runs/plain/ablation"))) == 30  # it lies in the run that this one inherits from
    shutil.move(RUN / "affinity", "hidden")
    with pytest.raises(UserError, match="stage=ablation needs the result of stage=affinity"):
        launch(compose_config([*overrides, "stage.ablation.random_walk=true", "force=true"]))
    launch(compose_config(overrides))
    assert len(read_rows(Path("runs/plain/ablation"))) == 15
    shutil.move("hidden", RUN / "affinity")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage.ablation.tiles=0", "tiles=0: expected a whole number of at least 1"),
        ("stage.ablation.backgrounds=[0]", "expected a list of numbers above 0"),
        ("stage.ablation.weights=[300]", "expected a list of whole numbers from 0 to 255"),
    ],
)
def test_wrong_settings_are_one_line(
    finished: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.chdir(finished)
    with pytest.raises(UserError, match=message):
        launch(compose_config([*one_scene("ablation"), override]))
