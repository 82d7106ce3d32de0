"""The whole story in real processes: run, run again, kill, go on."""

import json
import os
import pickle
import random
import re
import shutil
import signal
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accuracy_tables
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

import ome
from ome.cli.launch import launch
from ome.data.datamodules import TileDataModule
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.files import read_csv, read_json
from ome.geo.raster import read_png
from ome.ignore import IGNORE
from ome.inference.card import CARD, SegmenterCard
from ome.pipeline.layout import mask_path
from ome.pipeline.manifest import Manifest
from ome.report.map_areas import mapped_areas
from ome.report.provenance import describe_inputs
from ome.scoring.scores import Scores
from ome.stages.reproduce import compare_folders
from ome.training.seam import SeamClassifier
from ome.training.segmenter import UncertaintyWeightedSegmenter
from tests.archives import read_class_map
from tests.browser import complaints, show_as
from tests.conftest import compose_config, copy_until, forked, forked_pair, run_without_torch, tiny

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

RUN = Path("runs/synthetic_tu-test_resnet")


@pytest.fixture(scope="module")
def finished(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run of every stage, in which others may be made."""
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("finished"), dirs_exist_ok=True))


def results(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder / RUN / "report/results.json").read_text())
    return loaded


def test_the_benchmark_of_accuracy_counts_what_a_run_left(finished: Path) -> None:
    run = accuracy_tables.finished(finished / RUN, finished / "scenes/synthetic_rgb_full")
    weak, full = "weak segmentation", "pixel-supervised segmentation"
    row = run.rows[weak]
    better = Scores(row.scores.matrix + 999 * np.eye(5, dtype=np.int64), row.scores.names)
    runs = [run, run._replace(rows=run.rows | {weak: replace(row, scores=better)})]
    miou = [[row.rows[title].scores.miou for row in runs] for title in (weak, full)]
    assert [run.reached(weak) for run in runs] == pytest.approx([w / f for w, f in zip(*miou, strict=True)])
    rows = accuracy_tables.table_of("set", runs).splitlines()
    (line,) = (row for row in rows if row.startswith(f"| {weak} (test"))
    assert f"{100 * np.mean(miou[0]):.2f} ± {100 * np.std(miou[0], ddof=1):.2f}" in line
    assert "2 seeds" in rows[-1]
    (mean,) = accuracy_tables.mean_of_sets({"one": runs, "other": runs[:1]})
    ratios = [w / f for w, f in zip(*miou, strict=True)]
    assert mean.endswith(f": {50 * (np.mean(ratios) + ratios[0]):.1f} %")
    alone = run._replace(rows={title: row for title, row in run.rows.items() if title != full})
    assert "weak segmentation (test" in accuracy_tables.table_of("set", [alone])
    assert accuracy_tables.mean_of_sets({"set": runs, "other": [alone]}) == []
    fewer = run._replace(rows={title: row for title, row in run.rows.items() if "round" not in title})
    for some in ([run, fewer], [fewer, run]):  # a seed that settled before its last round
        lines = accuracy_tables.table_of("set", some).splitlines()
        titles = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:] if line.startswith("| ")]
        assert len(titles) == len(run.rows)
        assert [", 1 of 2 seeds" in title for title in titles] == ["round" in title for title in run.rows]
    partly = {title: replace(row, fraction=0.5) for title, row in run.rows.items()}
    table = accuracy_tables.table_of("set", [run, run._replace(rows=partly)])
    assert "| pseudo mask (train tiles, 75.0 % of the pixels) |" in table
    quick = accuracy_tables.finished(finished / RUN, finished / "scenes/synthetic_rgb_full", quick=True)
    assert [*quick.rows] == ["CAM", "pseudo mask"]
    assert quick.seconds < run.seconds
    # Every pixel of the pseudo masks is right or wrong at one weight.
    right, wrong = runs[0].errors.sum(axis=0)
    assert right / (right + wrong) == pytest.approx(runs[0].rows["pseudo mask"].scores.oa, abs=1e-9)
    errors = np.zeros((256, 2), dtype=np.int64)
    errors[0], errors[255] = (1, 3), (9, 7)
    table = accuracy_tables.weight_table("set", errors)
    assert table.splitlines()[2:] == ["| 0 | 20.0 % | 75.0 % |", "| 255 | 80.0 % | 43.8 % |"]
    manifests = [
        read_json(finished / RUN / stage / "manifest.json") for stage in ("labels", "cam", "pseudo", "seg")
    ]
    assert runs[0].seconds > sum(manifest["seconds"] for manifest in manifests)


def test_the_run_ends_with_a_table_and_a_report(finished: Path) -> None:
    output = (finished / "output.txt").read_text()
    for row in ("CAM", "pseudo mask", "weak segmentation", "pixel-supervised segmentation"):
        assert row in output
    for score in ("mIoU", "mF1", "OA", "building", "of the mIoU"):
        assert score in output
    page = (finished / RUN / "report/report.html").read_text()
    assert page.count("data:image/png;base64,") >= 8
    assert "http" not in page.replace("http-equiv", "")
    assert "python -m ome.run stage=all dataset=synthetic" in page
    matrix = results(finished)["weak segmentation"]["matrix"]  # type: ignore[index]
    assert sum(map(sum, matrix)) <= 256 * 256
    assert sum(map(sum, matrix)) > 0.9 * 256 * 256  # clutter alone is left out


def open_page(browser: "Chrome", folder: Path) -> None:
    browser.get((folder / RUN / "report/report.html").resolve().as_uri())


def texts(browser: "Chrome", selector: str) -> list[str]:
    return [
        element.get_attribute("textContent") for element in browser.find_elements("css selector", selector)
    ]


def test_the_page_shows_the_scores_and_the_worst_tiles(finished: Path, browser: "Chrome") -> None:
    open_page(browser, finished)
    assert complaints(browser) == []
    rows = read_csv(finished / RUN / "report/results.csv")
    table = texts(browser, "#scores ~ .scroll .plain:first-child td")[: len(rows[:-1]) * (len(rows[0]) - 1)]
    assert table == [text for row in rows[:-1] for text in list(row.values())[1:]]
    assert f"{rows[-1]['mIoU']} %" in texts(browser, ".card b")
    index = SceneIndex.read(finished / "scenes/synthetic_rgb_full")
    reader, names = SceneReader(index), index.palette.names
    scores = {}
    for tile in TagTable.read(finished / RUN / "labels/tags.csv", names).select("train", tagged=True).tiles:
        mask, reference = read_png(mask_path(finished / RUN / "pseudo", "masks", tile)), reader.mask(tile)
        both = (mask != 255) & (reference != 255)  # a tile without any response has no class anywhere
        pairs = [(mask[both] == k, reference[both] == k) for k in range(len(names))]
        if ious := [(a & b).sum() / (a | b).sum() for a, b in pairs if (a | b).any()]:
            scores[tile.name] = 100 * float(np.mean(ious))
    worst = sorted(scores, key=lambda name: (scores[name], name))[:3]
    shown = texts(browser, "#worst ~ .scroll th[scope=row]")[:3]
    assert shown == worst
    values = texts(browser, "#worst ~ .scroll td:nth-child(2)")[:3]
    assert values == [f"{scores[name]:.2f}" for name in worst]


def test_pictures_are_compared_by_mouse_keys_and_choice(finished: Path, browser: "Chrome") -> None:
    from selenium.webdriver import ActionChains, Keys  # noqa: PLC0415 - skipped where it is not installed
    from selenium.webdriver.support.ui import Select  # noqa: PLC0415

    open_page(browser, finished)
    show_as(browser, 1200, 800)
    first = browser.find_element("css selector", ".layered")
    over, under, slider = (first.find_element("css selector", name) for name in (".over", ".under", "input"))
    layers = {
        picture.get_attribute("alt").rpartition(" of ")[0]: picture.get_attribute("src")
        for picture in first.find_elements("css selector", ".layers img")
    }
    assert over.get_attribute("src") == layers["reference"]
    assert under.get_attribute("src") == layers["pseudo mask (round 1)"]
    assert over.value_of_css_property("clip-path") == "inset(0px 0px 0px 50%)"
    for key, percent in ((Keys.ARROW_LEFT, 49), (Keys.ARROW_LEFT, 48), (Keys.HOME, 0), (Keys.END, 100)):
        slider.send_keys(key)
        assert over.value_of_css_property("clip-path") == f"inset(0px 0px 0px {percent}%)"
    stack = first.find_element("css selector", ".stack")
    third = -stack.size["width"] // 6
    ActionChains(browser).move_to_element(stack).click_and_hold().move_by_offset(
        third, 40
    ).release().perform()
    assert int(slider.get_attribute("value")) == pytest.approx(33, abs=1)
    ActionChains(browser).move_by_offset(-third, 0).perform()  # let go: the divider stays
    divider = first.find_element("css selector", ".divider").rect
    assert divider["x"] + 1.5 == pytest.approx(stack.rect["x"] + stack.rect["width"] / 3, abs=4)
    for select, picture, name in zip(
        first.find_elements("css selector", "select"), (under, over), ("image", "weight"), strict=True
    ):
        Select(select).select_by_visible_text(name)
        assert (picture.get_attribute("src"), picture.get_attribute("alt")) == (layers[name], name)
    assert complaints(browser) == []


def test_the_page_fits_a_phone_in_light_and_dark(finished: Path, browser: "Chrome") -> None:
    open_page(browser, finished)
    show_as(browser, 390, 740, touch=True)
    cooccurrence = browser.find_elements("css selector", ".heat")[-1]
    assert cooccurrence.rect["x"] + cooccurrence.rect["width"] <= 390  # five classes need no scrolling
    lightness = {}
    for dark in (False, True):
        show_as(browser, 360, 740, dark=dark, touch=True)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        body = browser.find_element("css selector", "body")
        for kind in ("background-color", "color"):
            channels = re.findall(r"\d+", body.value_of_css_property(kind))[:3]
            lightness[dark, kind] = sum(map(int, channels)) / 3
        # What stands out to the right can be scrolled to in its own frame, and read as text.
        for frame in browser.find_elements("css selector", ".scroll"):
            assert frame.rect["x"] + frame.rect["width"] <= 360
    assert lightness[False, "background-color"] > 170 + lightness[False, "color"]
    assert lightness[True, "background-color"] < lightness[True, "color"] - 170
    legend = texts(browser, "#tiles ~ .key li")[:6]
    names = list(SceneIndex.read(finished / "scenes/synthetic_rgb_full").palette.names)
    assert legend == [f"{letter}{name}" for letter, name in zip("ABCDE", names, strict=True)] + ["no class"]


def test_pseudo_masks_hold_tagged_classes_and_fit_their_tiles(finished: Path) -> None:
    index = SceneIndex.read(finished / "scenes/synthetic_rgb_full")
    table = TagTable.read(finished / RUN / "labels/tags.csv", index.palette.names)
    reader = SceneReader(index)
    for tile, tags in zip(table.tiles, table.tags, strict=True):
        assert set(reader.mask(tile).ravel().tolist()) - {255} == set(tags.nonzero()[0].tolist())
        mask = read_png(finished / RUN / "pseudo/masks" / tile.scene / f"{tile.name}.png")
        assert mask.shape == (tile.height, tile.width)
        weight = read_png(finished / RUN / "pseudo/weights" / tile.scene / f"{tile.name}.png")
        # A tile of several tags none of which responds has no class, and counts for nothing.
        assert mask.max() < index.palette.num_classes or ({*mask.ravel()} == {255} and not weight.any())


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


@pytest.mark.parametrize("words", [[*tiny("report"), "force=true"], ["compare", str(RUN)]])
def test_tables_and_pages_do_not_wait_for_torch(finished: Path, tmp_path: Path, words: list[str]) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    done = run_without_torch(tmp_path / "copy", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "weak segmentation" in done.stdout


def test_any_scene_can_be_mapped(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the latest segmenter or another; the test scene as `seg` does."""
    monkeypatch.chdir(finished)
    scene = "stage.predict.scene=scenes/synthetic_rgb_full/images/2_13.tif"
    for network, folder in (("null", "refine/round_1"), ("weak", "seg/weak")):
        overrides = [*tiny("predict"), scene, f"stage.predict.network={network}"]
        launch(compose_config(overrides))
        expected = read_class_map(RUN / folder / "predictions/2_13.tif")
        np.testing.assert_array_equal(read_class_map(RUN / "predict/2_13/2_13.tif"), expected)
        card = SegmenterCard.read(RUN / folder)
    assert (card.segmenter, card.encoder, card.channels, card.tile) == (
        "fpn",
        "tu-test_resnet",
        (1, 2, 3),
        64,
    )
    assert list(card.classes) == ["impervious_surface", "building", "low_vegetation", "tree", "car"]
    assert card.pixel_size == pytest.approx(0.25, rel=1e-3)


def test_the_report_tells_what_classes_cover_on_the_ground(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After stage=predict: of the test scenes, and of the scene that was mapped."""
    monkeypatch.chdir(finished)
    shutil.copytree(RUN, "mapped")
    overrides = [*tiny("report"), "run_dir=mapped", "stage.report.figures=true"]
    launch(compose_config(overrides))
    assert sorted(path.stem for path in Path("mapped/report/figures").iterdir()) == [
        "co-occurrence",
        "confusion_pixel-supervised_segmentation",
        "confusion_weak_segmentation_round_1",
        "errors_by_weight",
        "scores",
        "tags",
        *(f"training_{name}" for name in ("cam", "refine_round_1", "seg_full", "seg_weak")),
    ]
    page = Path("mapped/report/report.html").read_text()
    tables = [
        re.findall(r"<t[hd][^>]*>([^<]*(?:<wbr>[^<]*)*)</t[hd]>", part)
        for part in page.split("Areas in ")[1:]
    ]
    reader = SceneReader(SceneIndex.read(Path("scenes/synthetic_rgb_full")))
    reference = reader.mask(Tile("2_13", 0, 0, 256, 256))
    maps = [
        read_class_map(RUN / f"{folder}/predictions/2_13.tif") for folder in ("refine/round_1", "seg/full")
    ]
    mapped = read_class_map(RUN / "predict/2_13/2_13.tif")
    for index, name in enumerate(["impervious_surface", "building", "low_vegetation", "tree", "car"]):
        for cells, shown in ((tables[0], [*maps, reference]), (tables[1], [mapped])):
            first = [cell.replace("<wbr>", "") for cell in cells].index(name)
            areas = [float(cell.replace(",", "")) for cell in cells[first + 1 : first + 4]]
            # A pixel of the town is a quarter of a metre wide, but for UTM's scale.
            for area, classes in zip(areas if len(shown) > 1 else areas[2:], shown, strict=True):
                assert area == pytest.approx((classes == index).sum() / 16, rel=1e-3, abs=1)
    without_bound = mapped_areas({"weak": RUN / "seg/weak", "full": Path("nowhere")}, reader)
    assert without_bound is not None
    assert without_bound["table"]["header"] == ["class", "weak", "reference"]


def test_a_run_can_be_reproduced_to_the_byte(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first half of a run; that the segmenters end alike is shown by the run that is stopped."""
    monkeypatch.chdir(finished)
    run = Path("half")
    for folder in ("logs", "labels", "cam", "pseudo"):
        shutil.copytree(RUN / folder, run / folder)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    overrides = ["stage=reproduce", f"stage.reproduce.run={run}", "logger=none"]
    launch(compose_config(overrides))
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = Path("runs/reproduced/reproduce")
    lines = {line["stage"]: line for line in read_csv(result / "reproduction.csv")}
    assert list(lines) == ["prepare", "labels", "cam", "pseudo"]
    assert {line["artefacts"] for line in lines.values()} == {"equal"}, lines
    for stage in lines:
        folder = result / "scenes" if stage == "prepare" else result / "run" / stage
        first = Path("scenes/synthetic_rgb_full") if stage == "prepare" else run / stage
        names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        names -= {Path("manifest.json"), Path("files.csv")}
        assert int(lines[stage]["files"]) == len(names) > 0
        for name in names:
            assert (first / name).read_bytes() == (folder / name).read_bytes(), name
    assert "repetition of" in capsys.readouterr().out


def test_inputs_are_told_by_content_or_by_time(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"abc")
    config = OmegaConf.create({"backbone": {"weights": str(weights)}})
    second = 1_000_000_000
    few = Manifest("prepare", "a", {"sources": [["images.zip", 7, 86400 * second]]}, {})
    assert describe_inputs(config, {"prepare": few}) == [
        "images.zip  7 bytes  changed 1970-01-02 00:00:00 UTC",
        # The digest of "abc" in FIPS 180-2.
        (
            f"backbone.weights={weights}  sha256 "
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        ),
    ]
    many = [[f"{number}.tif", number, second] for number in range(25)]
    descriptions = [
        describe_inputs(config, {"prepare": Manifest("prepare", "a", {"sources": many[:n]}, {})})
        for n in (24, 25)
    ]
    assert "and 5 more; sha256 of the whole list" in descriptions[1][20]
    assert (
        [line.count("bytes") for line in descriptions[0]]
        == [line.count("bytes") for line in descriptions[1]]
        == [1] * 20 + [0, 0]
    )


def test_what_is_not_equal_is_named(tmp_path: Path) -> None:
    for name, content in (("first", b"abc"), ("second", b"abd")):
        (tmp_path / name / "masks").mkdir(parents=True)
        (tmp_path / name / "masks/a.png").write_bytes(content)
        (tmp_path / name / "same.csv").write_bytes(b"same")
        (tmp_path / name / "manifest.json").write_bytes(content)
    outcome = compare_folders("pseudo", tmp_path / "first", tmp_path / "second")
    assert (outcome.files, outcome.differing) == (2, ["masks/a.png"])
    assert str(outcome) == "1 of 2 differ, the first is masks/a.png"


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


SIDE_KILLS = (
    ("affinity", "network.pt"),
    ("affinity", "2_11_00064_00000.npz"),
    ("ablation", "ablation.csv"),
    ("predict", "rows.json"),
    ("export", "segmenter.pt2"),
    ("suggest", "suggestions.csv"),
    ("compare", "comparison.md"),
    ("reproduce", "tags.csv"),
)
"""The same of the stages that run only when they are named; some are killed more than once."""


def kill_at(name: str) -> None:
    """Makes this process end by SIGKILL when it is about to finish a file of that name.

    Of a file that is written over and over, at the second time.
    """
    replace, times = Path.replace, 0

    def killing(path: Path, target: Path) -> Path:
        nonlocal times
        times += target.name == name
        if target.name == name and times == (2 if name == "rows.json" else 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = killing  # type: ignore[assignment,method-assign]


def terminate_at_step(learner: Any, number: int) -> None:  # noqa: ANN401 - a LightningModule's class
    """Makes this process receive SIGTERM in the middle of a training step."""
    step = learner.training_step

    def terminating(module: Any, batch: Any) -> Tensor:  # noqa: ANN401
        if module.global_step == number:
            os.kill(os.getpid(), signal.SIGTERM)
        result: Tensor = step(module, batch)
        return result

    learner.training_step = terminating


OTHERS = (
    *(".locks", "half", "tags", "killed", "whole", "mapped", "predict", "reproduced"),
    *("averaged", "interrupted", "turned"),
)
"""Folders that other tests leave beside and in the finished run."""


def artefacts(folder: Path, *others: str) -> dict[str, bytes]:
    """Every file but for logs, other folders, and what is in manifests and reports, which tell the time."""
    timed = ("manifest.json", "report.html", "files.csv")
    return {
        str(path.relative_to(folder)): b"" if path.name in timed else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not {"logs", *others} & set(path.relative_to(folder).parts)
        and not path.name.startswith((".printed", "output"))
        and path.suffix != ".lock"
    }


@pytest.mark.slow
def test_a_run_stopped_in_every_stage_ends_with_the_same_artefacts(finished: Path, tmp_path: Path) -> None:
    for stage, name in KILLS.items():
        until = [*tiny(), f"stage.until={stage}"]
        if stage == "cam":  # in the middle of the second of three epochs
            status, printed = forked(tmp_path, *until, sabotage=partial(terminate_at_step, SeamClassifier, 8))
            assert status == 143, printed
            assert printed.splitlines()[-1] == "error: terminated; the same command resumes where it stopped"
            assert "Traceback" not in printed
            checkpoint = torch.load(tmp_path / RUN / "cam.partial/last.ckpt", weights_only=True)
            assert checkpoint["global_step"] == 9
        status, printed = forked(tmp_path, *until, sabotage=partial(kill_at, name))
        assert status == -signal.SIGKILL, f"{stage}: {printed}"
        if stage == "cam":
            assert "resuming from step 9 of an interrupted run" in printed
        place = tmp_path / ("scenes/synthetic_rgb_full" if stage == "prepare" else RUN / stage)
        assert not place.exists()
    status, printed = forked(tmp_path, *tiny())
    assert status == 0, printed
    assert results(tmp_path) == results(finished)
    actual, expected = artefacts(tmp_path, *OTHERS), artefacts(finished, *OTHERS)
    assert actual.keys() == expected.keys()
    assert [name for name in actual if actual[name] != expected[name]] == []


def pickle_data_sets() -> None:
    construct = TileDataModule.__init__

    def checked(module: TileDataModule, *data: object, **options: Any) -> None:  # noqa: ANN401
        assert data[0] is not None
        pickle.dumps(data)
        construct(module, *data, **options)  # type: ignore[arg-type]

    TileDataModule.__init__ = checked  # type: ignore[method-assign]


# Python starts processes by "spawn" on macOS, and by "forkserver" on Linux from 3.14 on.
@pytest.mark.parametrize(
    ("stage", "before", "settings", "inputs"),
    [
        ("cam", "labels", [], {"prepare", "labels"}),
        ("affinity", "cam", [], {"prepare", "labels", "cam"}),
        ("seg", "pseudo", ["stage.seg.targets=[weak]"], {"prepare", "labels", "pseudo"}),
        ("seg", "labels", ["stage.seg.targets=[full]"], {"prepare", "labels"}),
    ],
)
def test_a_training_needs_only_what_it_reads_and_passes_it_to_loader_processes(
    stage: str, before: str, settings: list[str], inputs: set[str], finished: Path, tmp_path: Path
) -> None:
    copy_until(before, finished, tmp_path)
    status, printed = forked(tmp_path, *tiny(stage), *settings, sabotage=pickle_data_sets)
    assert status == 0, printed
    manifest = Manifest.read(tmp_path / RUN / stage)
    assert manifest is not None
    assert manifest.inputs.keys() == inputs


@pytest.mark.slow
def test_all_orientations_are_predicted_wherever_a_segmenter_predicts(finished: Path) -> None:
    for stage, settings in (("seg", ["stage.seg.targets=[weak]"]), ("refine", [])):
        typed = [*tiny(stage), f"inherit=[{RUN}]", "name=turned", "prediction.tta=d4", *settings]
        status, printed = forked(finished, *typed)
        assert status == 0, printed
    before, turned = finished / RUN, finished / "runs/turned"
    (scene,) = (turned / "seg/weak/predictions").glob("*.tif")
    image = finished / "scenes/synthetic_rgb_full/images" / scene.name
    options = {"network": "weak", "flip": False, "device": "cpu", "precision": "32-true"}
    expected = ome.predict(image, turned, tta="d4", **options).classes
    np.testing.assert_array_equal(read_class_map(scene), expected)
    # Both networks are the same, and so are the tiles that the round predicts.
    first, second = (artefacts(run / "refine/round_1/masks") for run in (before, turned))
    assert first.keys() == second.keys() != set()
    assert first != second


def test_a_round_corrects_the_pseudo_masks_where_the_segmenter_is_confident(finished: Path) -> None:
    settings = ["stage.refine.confident=0.4"]
    status, printed = forked(finished, *tiny("refine"), f"inherit=[{RUN}]", "name=corrected", *settings)
    assert status == 0, printed
    before, after = finished / RUN / "pseudo", finished / "runs/corrected/refine/round_1"
    replaced = []
    for path in (after / "masks").glob("*/*.png"):
        mask, new, predicted = (
            read_png(folder / kind / path.parent.name / path.name)
            for folder, kind in ((before, "masks"), (after, "masks"), (after, "cam_argmax"))
        )
        replaced.append((new != mask).mean())
        assert np.array_equal(new[new != mask], predicted[new != mask])
        assert np.array_equal(new == IGNORE, mask == IGNORE)
    assert 0 < np.mean(replaced) < 1


@pytest.mark.slow
def test_an_average_of_the_weights_survives_an_interruption(finished: Path) -> None:
    typed = [*tiny("seg"), f"inherit=[{RUN}]", "stage.seg.targets=[weak]", "segmenter.recipe.average=0.5"]
    status, printed = forked(finished, *typed, "name=averaged")
    assert status == 0, printed
    stop = partial(terminate_at_step, UncertaintyWeightedSegmenter, 2)  # within the second epoch
    status, printed = forked(finished, *typed, "name=interrupted", sabotage=stop)
    assert status == 143, printed
    status, printed = forked(finished, *typed, "name=interrupted")
    assert status == 0, printed
    assert "resuming from step 3 of an interrupted run" in printed
    whole, resumed, last = (
        torch.load(finished / run / "seg/weak/network.pt", weights_only=True)
        for run in (Path("runs/averaged"), Path("runs/interrupted"), RUN)
    )
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert not all(torch.equal(whole[name], last[name]) for name in whole)


def kill_after(seconds: float) -> None:
    """Makes this process end by SIGKILL, whatever it is doing then."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


@pytest.mark.slow
def test_a_run_killed_twenty_times_at_random_ends_with_the_same_artefacts(
    finished: Path, tmp_path: Path
) -> None:
    moments = random.Random(20)
    kills = 0
    while kills < 20:
        sabotage = partial(kill_after, moments.uniform(0.2, 5.0))
        status, printed = forked(tmp_path, *tiny(), sabotage=sabotage)
        if status == 0:  # from the beginning again
            shutil.rmtree(tmp_path / "runs")
            continue
        assert status == -signal.SIGKILL, printed
        kills += 1
    status, printed = forked(tmp_path, *tiny())
    assert status == 0, printed
    actual, expected = artefacts(tmp_path, *OTHERS), artefacts(finished, *OTHERS)
    assert actual.keys() == expected.keys()
    assert [name for name in actual if actual[name] != expected[name]] == []


@pytest.mark.slow
def test_a_side_stage_that_was_killed_leaves_what_two_processes_leave(finished: Path) -> None:
    (finished / "tags").mkdir()
    for folder in ("logs", "labels"):
        shutil.copytree(finished / RUN / folder, finished / "tags" / folder)
    settings = {
        "predict": [
            "stage.predict.scene=scenes/synthetic_rgb_full/images/2_13.tif",
            "stage.predict.confidence=true",
        ],
        "compare": [f"stage.compare.runs={RUN}"],
        "reproduce": ["stage.reproduce.run=tags"],
        "ablation": ["stage.ablation.tiles=3"],
    }
    for stage in dict.fromkeys(stage for stage, _ in SIDE_KILLS):
        typed = [*tiny(stage), f"inherit=[{RUN}]", *settings.get(stage, [])]
        for name in (name for of, name in SIDE_KILLS if of == stage):
            status, printed = forked(finished, *typed, "name=killed", sabotage=partial(kill_at, name))
            assert status == -signal.SIGKILL, f"{stage} at {name}: {printed}"
        status, printed = forked(finished, *typed, "name=killed")
        assert status == 0, printed
        # Uninterrupted, and by two processes, but for a training.
        start = forked if stage == "affinity" else forked_pair
        trainer = "trainer=cpu" if stage == "affinity" else "trainer=ddp_cpu"
        status, printed = start(finished, *(t for t in typed if t != "trainer=cpu"), trainer, "name=whole")
        assert status == 0, printed
        assert printed.count(f"done {stage}") == 1
    actual, expected = (artefacts(finished / "runs" / name) for name in ("killed", "whole"))
    assert {Path(name).parts[0] for name in expected} == {stage for stage, _ in SIDE_KILLS}
    assert not any("/." in name for name in expected)
    assert actual.keys() == expected.keys()
    assert [name for name in actual if actual[name] != expected[name]] == []


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(finished: Path, tmp_path: Path) -> None:
    # With the networks of one process, what they map can be compared; the last one is trained by two.
    for stage, inside in (("cam", "."), ("seg", "weak"), ("seg", "full")):
        partial_folder = tmp_path / RUN / f"{stage}.partial" / inside
        partial_folder.mkdir(parents=True)
        manifest = json.loads((finished / RUN / stage / "manifest.json").read_text())
        (tmp_path / RUN / f"{stage}.partial/.fingerprint").write_text(manifest["fingerprint"])
        for path in (finished / RUN / stage / inside).glob("*.*"):
            if path.name in ("network.pt", "history.csv", CARD):
                shutil.copy(path, partial_folder)
    overrides = [override for override in tiny() if override != "trainer=cpu"]
    status, printed = forked(tmp_path, *overrides, "trainer=ddp_cpu")
    assert status == 0, printed
    assert printed.count("done ") == 7
    actual, expected = artefacts(tmp_path, *OTHERS), artefacts(finished, *OTHERS)
    assert actual.keys() == expected.keys()
    for stage in ("labels", "cam", "pseudo", "seg", "refine", "report"):
        manifests = [
            json.loads((run / RUN / stage / "manifest.json").read_text()) for run in (tmp_path, finished)
        ]
        assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]
        assert manifests[0]["files"] == manifests[1]["files"]
    assert actual[str(RUN / "labels/tags.csv")] == expected[str(RUN / "labels/tags.csv")]
    two, one = results(tmp_path), results(finished)
    assert two.keys() == one.keys()
    for row in ("CAM", "pseudo mask", "weak segmentation", "pixel-supervised segmentation"):
        matrices = [np.array(rows[row]["matrix"]) for rows in (two, one)]  # type: ignore[index]
        # The same pixels are scored, and next to none falls otherwise.
        np.testing.assert_array_equal(matrices[0].sum(axis=1), matrices[1].sum(axis=1))
        assert np.abs(matrices[0] - matrices[1]).sum() <= 0.002 * matrices[1].sum()
    configs = list((tmp_path / RUN / "logs").glob("*/config/config.yaml"))
    assert len(configs) == 1
