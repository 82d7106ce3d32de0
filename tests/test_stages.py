"""The frame around stages: what is stale, what is missing, what is left behind."""

import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from ome.config.sections import settings_of
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tag_filter import coverage
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import write_text
from ome.geo.raster import read_png
from ome.inference.class_maps import LoadedTile
from ome.inference.pseudo_labels import mask_statistics, write_label
from ome.pipeline.changes import changes_since
from ome.pipeline.checksums import NAME as LISTING
from ome.pipeline.engine import execute
from ome.pipeline.forecast import forecast_of
from ome.pipeline.layout import mask_path, read_pseudo_label, read_tag_table
from ome.pipeline.manifest import NAME as MANIFEST
from ome.pipeline.manifest import Manifest, identity
from ome.pipeline.marks import MARK
from ome.pipeline.registry import STAGES, find_stage
from ome.pipeline.stage import Stage, Work, used_config
from ome.scoring.rows import Row, read_rows
from ome.scoring.scores import Scores
from ome.stages import seg
from ome.stages.refine import _averaged, _correct, agreement, among_tags
from ome.stages.report import _ratio_of
from tests.conftest import TINY, compose_config, tiny

Run = Callable[..., DictConfig]


def config(folder: Path, **settings: float) -> DictConfig:
    return DictConfig(
        {
            "stage": {"name": "made", **settings},
            "dataset": {"name": "town"},
            "run_dir": str(folder),
            "scenes": str(folder / "scenes"),
            "inherit": None,
            "seed": 0,
        }
    )


def counting(needs: tuple[str, ...] = ()) -> tuple[Stage, list[Path]]:
    """A stage that writes one file and remembers each time it ran."""
    ran: list[Path] = []

    def run(work: Work) -> dict[str, Any]:
        ran.append(work.folder)
        write_text(work.folder / "artefact", "whole")
        return {"files": 1}

    return Stage("made", run, requires=needs), ran


def test_scenes_are_shared_by_runs_of_any_seed(tmp_path: Path, run_here: Run) -> None:
    run_here(*tiny("prepare"), "seed=0")
    before = (tmp_path / "scenes/synthetic_rgb_full/manifest.json").stat().st_mtime_ns
    run_here(*tiny("prepare"), "seed=1")
    assert (tmp_path / "scenes/synthetic_rgb_full/manifest.json").stat().st_mtime_ns == before


def test_a_seed_counts_for_stages_that_read_it(tmp_path: Path) -> None:
    def seeded(seed: int) -> DictConfig:
        settings = config(tmp_path)
        settings.seed = seed
        return settings

    unseeded, _ = counting()
    assert [execute(unseeded, seeded(seed)) for seed in (0, 1)] == [True, False]
    drawn = replace(unseeded, name="drawn", config_keys=("seed",))
    assert [execute(drawn, seeded(seed)) for seed in (0, 0, 1)] == [True, False, True]


def test_a_stage_runs_once_and_again_when_its_settings_change(tmp_path: Path) -> None:
    stage, ran = counting()
    assert execute(stage, config(tmp_path, lr=1))
    assert not execute(stage, config(tmp_path, lr=1))
    assert execute(stage, config(tmp_path, lr=2))
    assert execute(stage, config(tmp_path, lr=2), force=True)
    assert len(ran) == 3
    assert (tmp_path / "made/artefact").read_text() == "whole"
    assert not (tmp_path / "made.partial").exists()
    manifest = Manifest.read(tmp_path / "made")
    assert manifest is not None
    assert manifest.counts == {"files": 1}


def test_a_changed_input_makes_a_stage_stale(tmp_path: Path) -> None:
    stage, ran = counting(needs=("before",))
    for fingerprint in ("a", "a", "b"):
        Manifest("before", fingerprint, {}, {}).write(tmp_path / "before")
        execute(stage, config(tmp_path))
    assert len(ran) == 2


def test_a_missing_input_names_the_command(tmp_path: Path) -> None:
    stage, ran = counting(needs=("labels",))
    with pytest.raises(UserError, match=r"run the same command with stage=labels first"):
        execute(stage, config(tmp_path))
    assert not ran


def test_a_failed_stage_leaves_the_old_result_and_its_own_remains(tmp_path: Path) -> None:
    stage, _ = counting()
    execute(stage, config(tmp_path, lr=1))

    def fail(work: Work) -> dict[str, Any]:
        write_text(work.folder / "half", "half")
        raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        execute(Stage("made", fail), config(tmp_path, lr=2))
    assert (tmp_path / "made/artefact").read_text() == "whole"
    resumes: list[bool] = []

    def go_on(work: Work) -> dict[str, Any]:
        resumes.append((work.folder / "half").exists())
        return {}

    execute(Stage("made", go_on), config(tmp_path, lr=2))
    assert resumes == [True]


def test_remains_of_other_work_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial/.fingerprint").write_text("of something else")
    (tmp_path / "made.partial/half").write_text("half")
    stage, _ = counting()
    execute(stage, config(tmp_path))
    assert not (tmp_path / "made/half").exists()


def test_a_whole_partial_folder_is_put_in_its_place(tmp_path: Path) -> None:
    stage, ran = counting()
    execute(stage, config(tmp_path))
    (tmp_path / "made").rename(tmp_path / "made.partial")  # as if killed just before the rename
    assert not execute(stage, config(tmp_path))
    assert len(ran) == 1


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    stage, ran = counting()
    tmp_path.joinpath(".made.lock").touch()
    with tmp_path.joinpath(".made.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is working on"):
            execute(stage, config(tmp_path))
    assert not ran


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_the_same_settings_alone_and_in_all(stage: str) -> None:
    alone = settings_of(compose_config([f"stage={stage}", *TINY]), stage)
    together = settings_of(compose_config(["stage=all", *TINY]), stage)
    assert alone.stage == together.stage


def test_the_command_line_wins_over_what_an_experiment_says_of_a_stage() -> None:
    overrides = ["stage=cam", "experiment=deepglobe_small", "dataset.raw=raw", "stage.cam.lr=0.5"]
    settings = settings_of(compose_config(overrides), "cam")
    assert settings.stage.lr == 0.5
    assert settings.stage.dihedral is True  # the experiment's
    assert settings.stage.momentum == 0.9  # the stage's own
    wins = settings_of(compose_config([*overrides, "stage.cam.dihedral=false"]), "cam")
    assert wins.stage.dihedral is False


CHOICES = (
    *((stage, "potsdam", "resnet38d") for stage in (*STAGES, "all")),
    *(
        ("all", dataset, "mobilenet_v2")
        for dataset in (
            "vaihingen",
            "deepglobe",
            "landcoverai",
            "loveda",
            "openearthmap",
            "flair",
            "isaid",
            "synthetic",
        )
    ),
    *(("all", "synthetic", backbone) for backbone in ("resnet50", "mobilenet_v2", "mit_b0")),
)
"""Every stage, dataset and backbone once: the groups do not know of each other."""


@pytest.mark.parametrize(("stage", "dataset", "backbone"), CHOICES)
def test_dataset_backbone_and_stage_compose_freely(stage: str, dataset: str, backbone: str) -> None:
    config = compose_config([f"stage={stage}", f"dataset={dataset}", f"backbone={backbone}"])
    assert (config.stage.name, config.dataset.name, config.backbone.name) == (stage, dataset, backbone)
    assert config.name == f"{dataset}_{backbone}"


def test_probabilities_among_tags_sum_to_one_over_the_tagged() -> None:
    probabilities = np.array([0.7, 0.2, 0.1], dtype=np.float32).reshape(3, 1, 1)
    among = among_tags(probabilities, np.array([0, 1, 1], dtype=np.uint8))
    assert among.ravel() == pytest.approx([0, 2 / 3, 1 / 3])
    certain = among_tags(
        np.array([1.0, 0, 0], np.float32).reshape(3, 1, 1), np.array([0, 1, 1], dtype=np.uint8)
    )
    assert certain.ravel() == pytest.approx([0, 0.5, 0.5])


def test_confident_predictions_replace_classes_of_a_pseudo_mask(tmp_path: Path) -> None:
    tile, colours = Tile("a", 0, 0, 1, 5), [0] * 768
    mask, weight = np.array([[[0, 0, 1, 255, 1]], [[255, 28, 0, 0, 113]]], np.uint8)
    write_label(tmp_path / "before", tile, colours, mask, weight, mask)
    second = np.array([[0.95, 0.8, 0.05, 0.99, 0.9]], np.float32)
    loaded = LoadedTile(tile, np.zeros((1, 5, 3), np.uint8), mask < 255, np.stack([1 - second, second]))
    _correct(tmp_path / "after", tmp_path / "before", colours, 0.9, [loaded])
    # Confident, not confident, confident of the other class, without a class, and just confident enough.
    after, kept = read_pseudo_label(tmp_path / "after", tile)
    assert after.tolist() == [[1, 0, 0, 255, 1]]
    assert np.array_equal(kept, weight)
    assert read_png(mask_path(tmp_path / "after", "cam_argmax", tile)).tolist() == [[1, 1, 0, 255, 1]]


def test_pixels_without_a_class_count_neither_as_uncertain_nor_as_unchanged(tmp_path: Path) -> None:
    tile, colours = Tile("a", 0, 0, 1, 4), [0] * 768
    masks = {"before": [[0, 1, 255, 255]], "after": [[0, 0, 255, 255]]}
    for name, mask in masks.items():
        weight = np.array([[255, 113, 0, 0]], np.uint8)
        write_label(tmp_path / name, tile, colours, np.array(mask, np.uint8), weight, weight)
    assert agreement(tmp_path / "before", tmp_path / "after", [tile]) == 0.5
    assert mask_statistics(tmp_path / "before", [tile], ("x", "y")) == {
        "mean_weight": 184,
        "zero_weight": 0,
        "mask_pixels": {"x": 1, "y": 1},
    }


def test_a_round_starts_from_the_mean_of_the_stretched_prediction_and_the_cams_as_they_are() -> None:
    tile, tags = Tile("a", 0, 0, 1, 3), np.array([1, 1, 0], dtype=np.uint8)
    table = TagTable(("x", "y", "z"), (tile,), tags[None], ("train",), np.ones(1, dtype=bool))
    prediction = np.array([[[0.9, 0.8, 0.7]], [[0.1, 0.2, 0.3]], [[0, 0, 0]]], np.float32)
    cams = np.array([[[0.0, 0.5, 1.0]], [[0.2, 0.0, 0.4]], [[0, 0, 0]]], np.float32)
    reader: Any = SimpleNamespace(valid=lambda tile: np.ones((tile.height, tile.width), bool))
    # The second class competes, so that its CAM reaches 0.4 only: that is its part of the mean.
    (mean,) = _averaged(lambda _: [prediction], lambda _: [cams], table, reader)([tile])
    by_hand = [[[0.5, 0.5, 0.5]], [[0.1, 0.25, 0.7]], [[0, 0, 0]]]
    np.testing.assert_allclose(mean, by_hand, atol=1e-4)


@pytest.mark.parametrize("fewer", [True, False])
def test_a_segmenter_of_fewer_tiles_is_named_beside_the_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fewer: bool
) -> None:
    tiles = tuple(Tile(scene, 0, 0, 8, 8) for scene in "abc")
    table = TagTable(("x",), tiles, np.ones((3, 1), np.uint8), ("train",) * 3, np.ones(3, dtype=bool))
    reader = SimpleNamespace(mask=None, has_mask=lambda scene: not fewer or scene == "b")
    scores = Scores(np.eye(1, dtype=np.int64), ("x",))
    for name, value in (
        ("SceneIndex", SimpleNamespace(read=lambda _: None)),
        ("scene_reader", lambda *_: reader),
        ("read_tag_table", lambda *_: table),
        ("train_segmenter", lambda *_: None),
        ("evaluate_segmenter", lambda *given: [Row(given[-1], "test scenes", scores)]),
    ):
        monkeypatch.setattr(seg, name, value)
    settings = DictConfig({"stage": {"targets": ["weak", "full"]}})
    inputs = dict.fromkeys(("prepare", "labels", "pseudo"), tmp_path)
    seg.run(Work(settings, tmp_path, inputs, tmp_path, settings))
    ratio_of = _ratio_of(read_rows(tmp_path))
    said = "pixel-supervised segmentation was trained on 1 of 3 training tiles, those with a reference mask"
    assert ratio_of is not None
    assert ratio_of.note == (said if fewer else "")
    assert ("trained_on" in (tmp_path / "scores.json").read_text()) == fewer


def test_a_filter_that_leaves_no_tile_says_so(run_here: Run) -> None:
    whole = ["dataset.tile={size: 256, stride: 256}", "dataset.filter={minimum: 0.9, overrides: {car: 0.9}}"]
    with pytest.raises(UserError, match=r"left none of 2 tiles to train on: lower dataset\.filter\.minimum"):
        run_here(*tiny(), *whole, "stage.until=labels")
    assert not Path("runs/synthetic_tu-test_resnet/labels").exists()


def test_a_class_too_small_to_see_is_left_out_alone_or_with_its_tile(run_here: Run) -> None:
    run_here(*tiny("prepare"))
    tables: list[TagTable] = []
    for drops in ("class", "tile"):
        config = run_here(*tiny("labels"), "dataset.filter.minimum=0.2", f"stage.labels.drops={drops}")
        index = SceneIndex.read(Path(config.scenes))
        tables.append(read_tag_table(Path(config.run_dir) / "labels", index).select("train"))
    of_class, of_tile = tables
    reader = SceneReader(index)
    covered = np.array([coverage(reader.mask(tile), len(index.palette.names)) for tile in of_class.tiles])
    large = covered >= [0.025 if name == "car" else 0.2 for name in index.palette.names]
    assert np.array_equal(of_class.learnt, (covered == 0) | large)
    assert np.array_equal(of_class.kept, ((covered > 0) & large).any(1))
    assert np.array_equal(of_tile.kept, ((covered == 0) | large).all(1))
    assert of_tile.learnt.all()
    assert of_tile.kept.sum() < of_class.kept.sum()


@pytest.mark.parametrize(("drops", "is_left_out"), [("tile", True), ("class", False)])
@pytest.mark.parametrize("table", [None, "tags.csv"])
def test_what_is_dropped_is_recorded_only_where_it_changes_the_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str | None, drops: str, is_left_out: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tags.csv").touch()
    typed = [f"dataset.tags={table or 'null'}", f"stage.labels.drops={drops}"]
    composed = compose_config(["stage=labels", *typed])
    used = used_config(find_stage("labels", composed), settings_of(composed, "labels"))
    assert ("drops" not in str(used)) == (is_left_out or table is not None)


def test_a_loss_that_becomes_nan_ends_with_one_line(run_here: Run) -> None:
    with pytest.raises(
        UserError, match=r"the loss of classifier became nan or infinite by step .* lower the learning rate"
    ):
        run_here(*tiny(), "stage.until=cam", "stage.cam.lr=1e18")
    assert not Path("runs/synthetic_tu-test_resnet/cam").exists()
    assert not Path("runs/synthetic_tu-test_resnet/cam.partial/last.ckpt").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "stage.until=nowhere",
            "stage.until=nowhere: unknown stage 'nowhere': choose one of prepare, labels",
        ),
        ("dataset.split.train=[]", "dataset.split.train is empty"),
        ("dataset.tags=nowhere.csv", "dataset.tags=nowhere.csv does not exist: check the path"),
        ("backbone.weights=no.pth", "backbone.weights=no.pth does not exist: check the path"),
        (
            ["backbone=resnet38d", "backbone.name=resnet38d", "backbone.weights=resnet38d.pth"],
            "convert_mxnet.py writes it from the ImageNet",
        ),
        ("crf.backend=other", "crf.backend=other: expected lattice, torch, auto or pydensecrf"),
    ],
)
def test_wrong_settings_are_one_line(run_here: Run, override: str | list[str], message: str) -> None:
    quick = ["stage.cam.epochs=1", "stage.cam.export.scales=[1.0]"]
    until = [] if "until" in override else ["stage.until=pseudo"]
    with pytest.raises(UserError, match=message.replace("[", r"\[").replace("]", r"\]")):
        run_here(*tiny(), *quick, *until, *([override] if isinstance(override, str) else override))


@pytest.mark.slow
def test_cams_need_not_lie_on_disk(run_here: Run) -> None:
    quick = ["stage.until=pseudo", "stage.cam.epochs=1"]
    run_here(*tiny(), *quick, "name=written")
    run_here(*tiny(), *quick, "name=passed_on", "stage.cam.export.write=false")
    written, passed_on = Path("runs/written"), Path("runs/passed_on")
    assert not (passed_on / "cam/cams").exists()
    masks = sorted(path.relative_to(written) for path in written.rglob("pseudo/masks/*/*.png"))
    same = [(read_png(written / path) == read_png(passed_on / path)).mean() for path in masks]
    assert len(masks) == 32
    assert np.mean(same) >= 0.999  # half precision on disk
    (cam,) = read_rows(written / "cam")
    cam_passed_on, pseudo_passed_on = read_rows(passed_on / "pseudo")
    assert [cam_passed_on.name, pseudo_passed_on.name] == ["CAM", "pseudo mask"]
    assert cam_passed_on.scores.miou == pytest.approx(cam.scores.miou, abs=1e-3)


def _finished(folder: Path) -> None:
    """Leaves the result as it is."""


def _removed(folder: Path) -> None:
    shutil.rmtree(folder)


def _lacks_a_file(folder: Path) -> None:
    (folder / "b.txt").unlink()


def _lost_its_list(folder: Path) -> None:
    (folder / LISTING).write_text("")


def _not_renamed(folder: Path) -> None:
    folder.rename(folder.with_name("made.partial"))


def _cut_short(folder: Path) -> None:
    """Killed after its first file."""
    partial = folder.with_name("made.partial")
    mark = f"{Manifest.read(folder).fingerprint}\nmade\n"  # type: ignore[union-attr]
    folder.rename(partial)
    for name in ("b.txt", "c.txt", LISTING, MANIFEST):
        (partial / name).unlink()
    write_text(partial / MARK, mark)


def _not_renamed_and_damaged(folder: Path) -> None:
    _lacks_a_file(folder)
    _not_renamed(folder)


@pytest.mark.parametrize("lr", [1, 2])
@pytest.mark.parametrize(
    ("left", "state", "writes"),
    [
        (_finished, "up to date", ""),
        (_removed, "runs", "abc"),
        (_lacks_a_file, "resumes", "bc"),
        (_lost_its_list, "runs", "abc"),
        (_not_renamed, "up to date", ""),
        (_cut_short, "resumes", "bc"),
        (_not_renamed_and_damaged, "resumes", "bc"),
    ],
)
def test_what_will_be_done_is_known_before(
    tmp_path: Path, left: Callable[[Path], None], state: str, writes: str, lr: float
) -> None:
    """For the same settings as before, and for others, with which all is made again."""
    written: list[str] = []

    def run(work: Work) -> dict[str, Any]:
        for name in "abc":
            if not (path := work.folder / f"{name}.txt").exists():
                path.write_text(name)
                written.append(name)
        return {}

    stage = Stage("made", run)
    execute(stage, config(tmp_path, lr=1))
    left(tmp_path / "made")
    written.clear()
    before = sorted(tmp_path.rglob("*"))
    forecast = forecast_of(stage, config(tmp_path, lr=lr), {})
    assert sorted(tmp_path.rglob("*")) == before
    assert forecast.state == (state if lr == 1 else "runs")
    there = [name for name in "abc" if forecast.partial and forecast.partial.has(f"{name}.txt")]
    ran = execute(stage, config(tmp_path, lr=lr))
    assert ran == (forecast.state != "up to date")
    assert "".join(written) == (writes if lr == 1 else "abc")
    assert not ran or sorted([*there, *written]) == list("abc")
    assert Manifest.read(tmp_path / "made").fingerprint == forecast.artefact.manifest.fingerprint  # type: ignore[union-attr]


def test_what_has_changed_since_a_result_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, tags = tmp_path / "weights.pth", tmp_path / "tags.csv"
    for path in (weights, tags):
        path.write_text("before")
    stage, _ = counting(needs=("before",))
    stage = replace(
        stage, config_keys=("seed",), external_files=lambda _: [*identity(weights), identity(tags)]
    )

    def message_of(seed: int, lr: int) -> str:
        capsys.readouterr()
        settings = config(tmp_path, lr=lr)
        settings.seed = seed
        execute(stage, settings)
        return " ".join(capsys.readouterr().out.split()).rpartition(" done")[0]

    Manifest("before", "a", {}, {}).write(tmp_path / "before")
    assert "earlier result" not in message_of(0, lr=1)
    assert message_of(0, lr=2).endswith("/made, to replace an earlier result (changed: stage.made.lr)")
    assert message_of(1, lr=3).endswith("(changed: seed, stage.made.lr)")
    os.utime(weights, ns=(1, 1))  # a copy
    assert message_of(1, lr=3) == ""
    weights.write_text("others")
    assert message_of(1, lr=3).endswith("(changed: weights.pth)")
    Manifest("before", "b", {}, {}).write(tmp_path / "before")
    tags.write_text("others")
    assert message_of(1, lr=3).endswith("(changed: tags.csv, the result of before)")
    stage = replace(stage, version=stage.version + 1)
    assert message_of(1, lr=3).endswith("(changed: the code of the stage)")


def test_maps_of_the_run_are_named_among_changes() -> None:
    """A report is of the maps that `ome predict` has made since, which are no files outside the run."""
    city, lake = ["city", "0123456789abcdef"], ["lake", "0123456789abcdef"]
    report = Manifest("report", "", {"sources": [city]}, {})
    assert changes_since(report, {"sources": [city, lake]}, {}) == ["the map lake"]
    assert changes_since(report, {"sources": [["city", "f" * 16]]}, {}) == ["the map city"]


@pytest.mark.parametrize("name", ["pseudo", "refine"])
def test_the_number_of_threads_makes_nothing_stale(name: str) -> None:
    chosen = [compose_config([*tiny(name), f"stage.{name}.threads={count}"]) for count in ("null", "1", "2")]
    used = [used_config(find_stage(name, one), settings_of(one, name))["stage"] for one in chosen]
    assert used[0] == used[1] == used[2]
