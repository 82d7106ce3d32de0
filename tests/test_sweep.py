"""Sweeps: what jobs share, what they must not share, and the table at the end."""

import fcntl
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from ome.cli.run import run
from ome.cli.runner import objective
from ome.cli.sweep import as_job
from ome.errors import UserError
from ome.files import read_csv
from ome.pipeline.artifacts import inherited_runs
from ome.pipeline.engine import execute
from ome.pipeline.manifest import Manifest
from ome.pipeline.stage import Stage, Work
from ome.scoring.rows import Row, read_rows, write_rows
from ome.scoring.scores import Scores
from tests.conftest import compose_config, forked, run_process, tiny

Run = Callable[..., DictConfig]
SCENES = "scenes/synthetic_rgb_full"
LABELS = [*tiny(), "stage.until=labels"]


def test_a_stage_that_fits_is_read_where_it_lies(run_here: Run) -> None:
    run_here(*LABELS, "name=first")
    before = Manifest.read(Path("runs/first/labels"))
    run_here(*LABELS, "name=second", "inherit=runs/first")
    assert not Path("runs/second/labels").exists()
    run_here(*LABELS, "name=third", "inherit=runs/fir*", "dataset.filter.minimum=0.5")
    assert (third := Manifest.read(Path("runs/third/labels"))) is not None
    assert third.config["dataset.filter"]["minimum"] == 0.5
    assert Manifest.read(Path("runs/first/labels")) == before


def test_tags_of_another_tile_size_are_not_read(run_here: Run) -> None:
    run_here(*LABELS, "name=first")
    with pytest.raises(
        UserError,
        match=r"first/labels was made with dataset\.tile\.size=64, not 32: run .* or with stage=all",
    ):
        run_here(*tiny("cam"), "dataset.tile.size=32", "name=other", "inherit=runs/first")
    assert not Path("runs/other/cam").exists()


def _config(run: Path, *inherit: Path) -> DictConfig:
    return OmegaConf.create(
        {
            "stage": {"name": "seg"},
            "dataset": {"name": "town"},
            "backbone": "small",
            "run_dir": str(run),
            "scenes": str(run / "scenes"),
            "inherit": [str(folder) for folder in inherit],
        }
    )


def _finished(run: Path, stage: str, fingerprint: str, config: dict[str, Any], **inputs: str) -> None:
    Manifest(stage, fingerprint, config, inputs).write(run / stage)


def _reading(*names: str) -> tuple[Stage, list[dict[str, Path]]]:
    """A stage that remembers the folders that it was given."""
    inputs: list[dict[str, Path]] = []

    def run(work: Work) -> dict[str, Any]:
        inputs.append(dict(work.inputs))
        return {}

    return Stage("seg", run, requires=names), inputs


def test_what_a_result_was_made_from_must_fit_too(tmp_path: Path) -> None:
    """Pseudo masks say nothing of the backbone; the CAMs that they were made of do."""
    good, bad, orphan = (tmp_path / name for name in ("good", "bad", "gone"))
    for folder, backbone in ((good, "small"), (bad, "large")):
        _finished(
            folder, "cam", f"cam of {folder.name}", {"backbone": backbone, "trainer.accelerator": "gpu"}
        )
        _finished(
            folder, "pseudo", f"pseudo of {folder.name}", {"stage": {"a": 1}}, cam=f"cam of {folder.name}"
        )
    _finished(orphan, "pseudo", "pseudo of gone", {}, cam="cam of gone")
    stage, inputs = _reading("pseudo")
    execute(stage, _config(tmp_path / "job", bad, orphan, good))
    assert inputs == [{"pseudo": good / "pseudo"}]
    with pytest.raises(UserError, match="bad/pseudo was made with backbone=large, not small"):
        execute(stage, _config(tmp_path / "other", bad))
    with pytest.raises(UserError, match="made with a result of stage=cam that does not exist any more"):
        execute(stage, _config(tmp_path / "other", orphan))


def test_results_that_were_made_from_different_things_are_not_mixed(tmp_path: Path) -> None:
    """CAMs of the tiles that the job's own tags describe, or none."""
    job, other = tmp_path / "job", tmp_path / "other"
    _finished(job, "labels", "labels of job", {})
    _finished(other, "cam", "cam of other", {}, labels="labels of other")
    stage, _ = _reading("labels", "cam")
    with pytest.raises(UserError, match=r"other/cam was made with another labels than .*job/labels"):
        execute(stage, _config(job, other))


def test_what_a_run_has_read_of_others_it_reads_again_without_the_setting(tmp_path: Path) -> None:
    """Results and inputs of its stages, and what else those runs have; where all of them have moved, too."""
    project, moved = tmp_path / "project", tmp_path / "moved"
    for name in ("labels", "pseudo"):
        _finished(project / "first", name, f"{name} of first", {})
    stage, _ = _reading("pseudo")
    execute(stage, _config(project / "job", project / "first"))
    project.rename(moved)
    job, first = moved / "job", moved / "first"
    stage, inputs = _reading("labels", "pseudo")
    stage = replace(stage, name="report")
    execute(stage, _config(job))
    assert inputs == [{"labels": first / "labels", "pseudo": first / "pseudo"}]
    record = job / "logs/pseudo/inherited.json"
    (job / "logs/labels/inherited.json").unlink()
    whole = record.read_text()
    for damaged in ("", "{}"):
        record.write_text(damaged)
        assert inherited_runs(_config(job)) == []
    record.write_text(whole)
    _finished(job, "pseudo", "pseudo of job", {})
    assert inherited_runs(_config(job)) == [], "its own comes first"
    (job / "pseudo/manifest.json").unlink()
    _finished(first, "pseudo", "another", {})
    with pytest.raises(UserError, match="stage=report needs the result of stage=labels"):
        execute(stage, _config(job))


def test_a_job_waits_for_the_one_that_makes_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, inputs = _reading("labels")
    first, second = tmp_path / "0_first", tmp_path / "1_second"
    _finished(tmp_path / "run", "labels", "labels", {})
    execute(stage, _config(tmp_path / "elsewhere/job", tmp_path / "run"))
    manifest = Manifest.read(tmp_path / "elsewhere/job/seg")
    assert manifest is not None
    lock = tmp_path / ".locks" / f"seg_{manifest.fingerprint}"
    lock.parent.mkdir()
    config = _config(second, tmp_path / "run", first)
    waiting = threading.Thread(target=execute, args=(stage, config), daemon=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        manifest.write(first / "seg")
    waiting.join(20)
    assert not waiting.is_alive()
    assert len(inputs) == 1
    assert not (second / "seg").exists()
    assert "waiting for another run that is computing the same seg" in capsys.readouterr().out


def test_scenes_in_the_making_are_waited_for(tmp_path: Path) -> None:
    stage, inputs = _reading()
    stage = replace(stage, name="prepare")
    config = _config(tmp_path / "run")
    waiting = threading.Thread(target=execute, args=(stage, config), daemon=True)
    lock = tmp_path / "run/.scenes.lock"
    lock.parent.mkdir()
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert not inputs
    waiting.join(20)
    assert len(inputs) == 1


def test_other_processes_find_the_jobs_function_by_name() -> None:
    assert pickle.loads(pickle.dumps(run)) is run


def test_a_job_gets_its_own_folder_and_reads_the_others(tmp_path: Path) -> None:
    config = compose_config(["logger=wandb", "name=mine"])
    sweep = tmp_path / "sweep[1]"  # a bracket is no pattern here
    as_job(config, sweep, sweep / "3_lr=0.1")
    assert config.run_dir == str(sweep / "3_lr=0.1")
    assert config.inherit[0] == "runs/mine"
    assert config.logger.group == "sweep[1]"
    for name in ("0_lr=1", "3_lr=0.1"):
        (sweep / name).mkdir(parents=True)
    assert inherited_runs(config) == [sweep / "0_lr=1"]  # and not itself


@pytest.mark.parametrize(("rows", "expected"), [(["CAM", "pseudo mask"], 0.5), ([], None)])
def test_a_search_gets_the_last_score_of_weak_labels(
    tmp_path: Path, rows: list[str], expected: float | None
) -> None:
    half = Scores(np.array([[1, 0], [1, 0]]), ("a", "b"))  # IoU 1/2 and 0
    whole = Scores(np.eye(2, dtype=np.int64), ("a", "b"))
    scored = [Row(name, "tiles", whole) for name in rows]
    if scored:
        scored[-1] = Row(rows[-1], "tiles", Scores(np.array([[2, 1], [1, 2]]), ("a", "b")))
    bound = Row("pixel-supervised segmentation", "scenes", half)
    write_rows(tmp_path, [*scored, bound])
    assert objective(tmp_path) == expected  # IoU 2/4 and 2/4, and not the 1/4 of the bound


@pytest.mark.parametrize("name", ["tile_size", "seam", "uncertainty", "optuna_seam"])
def test_ready_sweeps_name_what_they_sweep(name: str) -> None:
    with initialize_config_module("ome.conf", version_base="1.3"):
        config = compose("config", [f"sweep={name}", "dataset=potsdam"], return_hydra_config=True)
    assert config.hydra.mode.name == "MULTIRUN"
    parameters = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
    for override in OverridesParser.create().parse_overrides(parameters):
        assert override.is_sweep_override()
        assert OmegaConf.select(config, override.key_or_group, throw_on_missing=True) is not None


def test_a_sweep_ends_in_one_table(tmp_path: Path) -> None:
    """Two jobs that share scenes and tags, in folders that are named after what differs alone."""
    weights = "long/" * 60
    overrides = [
        *tiny(),
        "stage.until=cam",
        "stage.cam.epochs=1",
        "stage.cam.validation_tiles=0",
        "dataset.split.train=['2_10']",
        "dataset.split.test=[]",
        "stage.cam.lr=0.01,0.02",
        f"segmenter.weights={weights}",
    ]
    status, printed = forked(tmp_path, "-m", *overrides)
    assert status == 0, printed
    (sweep,) = (tmp_path / "runs/sweeps").iterdir()
    jobs = sorted(path for path in sweep.iterdir() if path.name[0].isdigit())
    assert [path.name for path in jobs] == ["0_stage.cam.lr=0.01", "1_stage.cam.lr=0.02"]
    assert [(job / "labels").exists() for job in jobs] == [True, False]
    assert all((job / "cam/manifest.json").exists() for job in jobs)
    rows = read_csv(sweep / "compare/comparison.csv")
    assert {row["settings"] for row in rows} == {"stage.cam.lr=0.01", "stage.cam.lr=0.02"}
    assert "cam.lr=0.02" in printed
    assert "glyf" not in printed  # fontTools names every table of a font in a PDF
    assert f"comparison: {sweep / 'compare'}" in printed.replace("\n", "")
    for words in (["report"], ["suggest"], ["resume", "stage.until=cam"]):
        command, *settings = words
        status, printed = forked(tmp_path, command, f"runs/sweeps/{sweep.name}/{jobs[1].name}", *settings)
        assert status == 0, printed
        assert not (jobs[1] / "labels").exists()
    assert "up to date labels" in printed
    assert "up to date cam" in printed
    name = f"sweeps/{sweep.name}"
    status, printed = forked(tmp_path, "stage=report", "dataset=synthetic", f"name={name}")
    assert status == 1
    assert f"runs/{name} is a sweep, not a run: type stage=compare" in " ".join(printed.split())


def test_a_swept_value_that_another_overrules_is_refused(tmp_path: Path) -> None:
    """The tile of `tiny` has a size, given after the swept one: three equal jobs."""
    status, printed = forked(tmp_path, "sweep=tile_size", *tiny())
    assert status == 1
    line = " ".join(printed.split())
    assert line.startswith("error: dataset.tile={size: 64")
    assert "overrides the swept dataset.tile.size=128,256,512" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_paths_slashes_are_no_folders(tmp_path: Path) -> None:
    status, printed = forked(
        tmp_path, "-m", *tiny(), "stage.until=prepare", f"dataset.raw=raw/a,{'long/' * 60}"
    )
    assert status == 0, printed
    (sweep,) = (tmp_path / "runs/sweeps").iterdir()
    jobs = sorted(path.name for path in sweep.iterdir() if path.name[0].isdigit())
    assert jobs == ["0_dataset.raw=raw-a", f"1_dataset.raw={'long-' * 60}"[:122]]


LAUNCHED = [
    *tiny(),
    "stage.until=labels",
    "dataset.split.train=['2_10']",
    "dataset.split.test=[]",
    "dataset.filter.minimum=0.02,0.5",
]


def typed(folder: Path, *overrides: str) -> tuple[int, str]:
    """As a user would, in a process whose main module is the command."""
    done = run_process(folder, *overrides)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "plugin", "start"),
    [
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "hydra_plugins.hydra_joblib_launcher", typed),
        (["hydra/launcher=submitit_local"], "hydra_plugins.hydra_submitit_launcher", forked),
    ],
)
def test_jobs_side_by_side_share_what_is_the_same(
    tmp_path: Path, launcher: list[str], plugin: str, start: Callable[..., tuple[int, str]]
) -> None:
    """Two other processes need the same scenes at the same time: one prepares, the other waits."""
    pytest.importorskip(plugin)
    status, printed = start(tmp_path, "-m", *LAUNCHED, *launcher)
    assert status == 0, printed
    (sweep,) = (tmp_path / "runs/sweeps").iterdir()
    jobs = sorted(path for path in sweep.iterdir() if path.name[0].isdigit())
    assert [job.name for job in jobs] == [
        "0_dataset.filter.minimum=0.02",
        "1_dataset.filter.minimum=0.5",
    ]
    manifests = [Manifest.read(job / "labels") for job in jobs]
    scenes = Manifest.read(tmp_path / SCENES)
    assert scenes is not None
    assert [manifest.config["dataset.filter"]["minimum"] for manifest in manifests if manifest] == [0.02, 0.5]
    assert [manifest.inputs for manifest in manifests if manifest] == [{"prepare": scenes.fingerprint}] * 2
    assert len(list(tmp_path.glob("scenes/*/manifest.json"))) == 1


@pytest.mark.slow
def test_a_search_ends_with_the_best_of_its_jobs(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    overrides = [
        *LAUNCHED[: len(tiny())],
        "sweep=optuna_seam",
        "hydra.sweeper.n_trials=2",
        "stage.cam.epochs=1",
        "stage.cam.validation_tiles=0",
        *LAUNCHED[-3:-1],
    ]
    status, printed = forked(tmp_path, *overrides)
    assert status == 0, printed
    (sweep,) = (tmp_path / "runs/sweeps").iterdir()
    search = OmegaConf.load(sweep / "optimization_results.yaml")
    rows = read_csv(sweep / "compare/comparison.csv")
    values = [read_rows(job / "cam")[-1].scores.miou for job in sorted(sweep.glob("[01]_*"))]
    assert search.best_value == pytest.approx(max(values))
    assert len(set(values)) == len(rows) == 2
    keys = list(search.best_params)
    assert all(f"{key}=" in row["settings"] for key in keys for row in rows)
    best = Manifest.read(sorted(sweep.glob("[01]_*"))[int(np.argmax(values))] / "cam")
    assert best is not None
    assert search.best_params["stage.cam.lr"] == best.config["stage"]["lr"]
