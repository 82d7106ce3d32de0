"""Loggers: the same scalars everywhere, and what Weights & Biases is told, read back from its files."""

import json
import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from ome.cli.launch import launch
from ome.files import read_csv
from ome.pipeline.manifest import Manifest
from ome.scoring.rows import read_rows
from ome.tracking import weights_and_biases as tracking
from tests.conftest import compose_config, forked, tiny

Scalars = dict[str, list[tuple[int, float]]]

CAM = [
    "optimizer=sgd",
    "stage.cam.lr=0.01",
    "stage.cam.epochs=2",
    "stage.cam.batch=1",
    "dataset.split.train=['2_10']",
]
RUN = Path("runs/synthetic_tu-test_resnet")


def run(*overrides: str) -> DictConfig:
    config = compose_config(overrides)
    launch(config)
    return config


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where CAMs were made three times over, by each logger, and a report by one."""
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DATA_DIR", str(folder))
        patch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.5")  # of the machine, every 15 s else
        wandb.teardown()  # which reads the environment once
        run(*tiny(), *CAM, "stage.until=cam", "logger=wandb")
        run(*tiny("report"), CAM[-1], "logger=wandb")
        for logger in ("csv", "tensorboard"):
            settings = ["force=true", f"logger={logger}", f"name={logger}", "inherit=runs/synthetic*"]
            run(*tiny("cam"), *CAM, *settings, "stage.cam.export.write=false")
    return folder


def records(path: Path) -> list[Any]:
    """Every record of a .wandb file: a log of LevelDB, blocks of 32 KiB with records or pieces of them."""
    content, place, pieces, contents = path.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:  # the rest of a block is too short for a header
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        pieces += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # a whole record, or its last piece
            contents.append(wandb_internal_pb2.Record.FromString(pieces))
            pieces = b""
    return contents


def runs(folder: Path) -> dict[str, list[Any]]:
    """The records of every offline run by the run's name."""
    by_title = {}
    for path in sorted(folder.glob("logs/wandb/offline-run-*/*.wandb")):
        read = records(path)
        (started,) = [record.run for record in read if record.WhichOneof("record_type") == "run"]
        by_title[started.display_name] = read
    return by_title


def plain(items: Any) -> dict[str, Any]:  # noqa: ANN401 - repeated protocol messages
    values: dict[str, Any] = {}
    for item in items:
        name, *inner = [item.key] if item.key else item.nested_key
        value = json.loads(item.value_json)
        if inner:
            values.setdefault(name, {})["/".join(inner)] = value
        else:
            values[name] = value
    return values


def history(read: list[Any]) -> list[dict[str, Any]]:
    return [plain(record.history.item) for record in read if record.WhichOneof("record_type") == "history"]


def wandb_scalars(folder: Path) -> Scalars:
    scalars: Scalars = defaultdict(list)
    for line in history(runs(folder / RUN)["synthetic_tu-test_resnet classifier"]):
        for name, value in line.items():
            if not name.startswith("_") and name not in {"epoch", "trainer/global_step"}:
                scalars[name].append((line["trainer/global_step"], value))
    return scalars


def csv_scalars(folder: Path) -> Scalars:
    scalars: Scalars = defaultdict(list)
    (path,) = folder.glob("runs/csv/logs/cam/version_0/metrics.csv")
    for line in read_csv(path):
        for name, value in line.items():
            if value and name not in {"epoch", "step"}:
                scalars[name].append((int(line["step"]), float(value)))
    return scalars


def tensorboard_scalars(folder: Path) -> Scalars:
    accumulator = EventAccumulator(str(folder / "runs/tensorboard/logs/cam/version_0"))
    accumulator.Reload()
    names = set(accumulator.Tags()["scalars"]) - {"epoch"}
    return {name: [(e.step, e.value) for e in accumulator.Scalars(name)] for name in names}


@pytest.mark.parametrize("other", [csv_scalars, tensorboard_scalars])
def test_loggers_get_the_same_scalars(tracked: Path, other: Callable[[Path], Scalars]) -> None:
    expected, actual = wandb_scalars(tracked), other(tracked)
    assert set(expected) >= {"train/total", "validation/cam_miou", "learning_rate", "learning_rate_2"}
    assert set(actual) == set(expected)
    for name, points in expected.items():
        assert [step for step, _ in actual[name]] == [step for step, _ in points]
        assert [value for _, value in actual[name]] == pytest.approx([value for _, value in points], rel=1e-6)


def test_learning_rates_are_those_of_the_schedule(tracked: Path) -> None:
    """Polynomial decay over two epochs of single tiles; new layers have ten times the rate, biases twice."""
    scalars = wandb_scalars(tracked)
    manifest = Manifest.read(tracked / RUN / "cam")
    assert manifest is not None
    read = runs(tracked / RUN)["synthetic_tu-test_resnet classifier"]
    defined = [record.metric for record in read if record.WhichOneof("record_type") == "metric"]
    assert ("*", "trainer/global_step") in {(metric.glob_name, metric.step_metric) for metric in defined}
    steps = 2 * manifest.counts["training_tiles"]
    assert 20 < steps < 40
    factors = {"learning_rate": 1, "learning_rate_2": 2, "learning_rate_3": 10, "learning_rate_4": 20}
    for name, factor in factors.items():
        for step, rate in scalars[name]:
            assert rate == pytest.approx(factor * 0.01 * (1 - (step + 1) / steps) ** 0.9, rel=1e-5)


def test_every_stage_is_a_run_of_its_own(tracked: Path) -> None:
    by_title = runs(tracked / RUN)
    assert set(by_title) == {
        f"synthetic_tu-test_resnet {title}" for title in ("prepare", "labels", "classifier", "cam", "report")
    }
    for name, read in by_title.items():
        (started,) = [record.run for record in read if record.WhichOneof("record_type") == "run"]
        stage = name.split()[-1]
        assert started.job_type == ("cam" if stage == "classifier" else stage)
        assert (started.project, started.run_group) == ("ome", "synthetic_tu-test_resnet")
        config = {item.key: json.loads(item.value_json) for item in started.config.update}
        assert config["dataset"]["name"] == "synthetic"
        assert config["run_dir"] == str(RUN)  # resolved, as all of it
        assert "${" not in json.dumps(config)
        assert config["versions"]["git"]
        (ended,) = [record.exit for record in read if record.WhichOneof("record_type") == "exit"]
        assert ended.exit_code == 0


def test_the_machine_is_watched_while_training(tracked: Path) -> None:
    read = runs(tracked / RUN)["synthetic_tu-test_resnet classifier"]
    statistics = [record.stats.item for record in read if record.WhichOneof("record_type") == "stats"]
    assert {"cpu", "memory_percent"} <= {item.key for items in statistics for item in items}


def test_stages_show_counts_tables_and_pictures(tracked: Path) -> None:
    by_title = runs(tracked / RUN)
    (labels,) = history(by_title["synthetic_tu-test_resnet labels"])
    assert {"cooccurrence", "pictures/cooccurrence", "pictures/tags"} <= set(labels)
    assert "tags" in labels  # 16 tiles; a table of thousands would be left out
    assert labels["cooccurrence"]["nrows"] == 5
    updates = [
        plain(record.summary.update)
        for record in by_title["synthetic_tu-test_resnet labels"]
        if record.WhichOneof("record_type") == "summary"
    ]
    assert any(update.get("train_tiles") == 16 for update in updates)
    (report,) = history(by_title["synthetic_tu-test_resnet report"])
    assert {"scores", "results", "confusion/CAM"} <= set(report)
    assert sum(name.startswith("pictures/cam/") for name in report) == 2
    picture = report["pictures/confusion/CAM"]
    assert (picture["_type"], picture["caption"]) == ("image-file", "CAM, train tiles")
    assert picture["width"] > 300
    (row,) = read_rows(tracked / RUN / "report")
    assert report["mIoU/CAM"] == pytest.approx(row.scores.miou)


def test_lineage_leads_from_stage_to_stage(tracked: Path) -> None:
    used: dict[str, set[str]] = {}
    digests: dict[str, str] = {}
    for name, read in runs(tracked / RUN).items():
        every = [record.artifact for record in read if record.WhichOneof("record_type") == "artifact"]
        artifacts = [artifact for artifact in every if artifact.type != "run_table"]
        for artifact in artifacts:
            (entry,) = artifact.manifest.contents
            assert entry.ref.startswith("file:///")
            assert Path(entry.ref.removeprefix("file://")).name == "manifest.json"
            assert Path(entry.ref.removeprefix("file://")).exists()
            if not artifact.use_after_commit:
                digests[artifact.name] = artifact.digest
        used[name.split()[-1]] = {artifact.name for artifact in artifacts if artifact.use_after_commit}
        assert all(digests.get(artifact.name, artifact.digest) == artifact.digest for artifact in artifacts)
    scenes, run_name = "synthetic_rgb_full-prepare", RUN.name
    assert used["labels"] == {scenes}
    assert used["cam"] == {scenes, f"{run_name}-labels"}
    assert used["report"] == {scenes, f"{run_name}-labels", f"{run_name}-cam"}
    assert set(digests) == {scenes, *(f"{run_name}-{stage}" for stage in ("labels", "cam", "report"))}


@pytest.mark.slow
def test_the_jobs_of_a_sweep_are_a_group_with_lineages_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Job folders are called `0_dataset.filter.minimum=0.02`, and an artifact's name holds no `=`."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    varied = ["dataset.split.train=['2_10']", "dataset.filter.minimum=0.02,0.05"]
    status, printed = forked(tmp_path, "-m", *tiny(), *varied, "stage.until=labels", "logger=wandb")
    assert status == 0, printed
    assert "cannot show stage" not in printed
    (sweep,) = (tmp_path / "runs/sweeps").iterdir()
    jobs = sorted(path for path in sweep.iterdir() if path.name[0].isdigit())
    for job, minimum in zip(jobs, ("0.02", "0.05"), strict=True):
        read = runs(job)[f"{job.name} labels"]
        assert [record.run.run_group for record in read if record.WhichOneof("record_type") == "run"] == [
            sweep.name
        ]
        named = {record.artifact.name for record in read if record.WhichOneof("record_type") == "artifact"}
        assert f"{job.name[0]}_dataset.filter.minimum-{minimum}-labels" in named


def test_without_network_the_run_is_kept_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(tracking, "SECONDS_TO_OPEN", 1.0)
    monkeypatch.setattr(tracking, "_unreachable", [])
    tracking.say_once.cache_clear()
    wandb.teardown()  # which reads the environment once
    opened: list[str] = []
    init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **given: opened.append(given["mode"]) or init(**given))
    run(*tiny(), "stage.until=labels", "logger=wandb")
    assert opened == ["online", "offline", "offline"]  # the server is asked once
    wandb.teardown()
    assert set(runs(RUN)) == {"synthetic_tu-test_resnet prepare", "synthetic_tu-test_resnet labels"}
    printed = capsys.readouterr().out
    assert "127.0.0.1:9" in printed
    assert printed.count(f"to upload later: wandb sync {RUN}/logs/wandb/offline-run-*") == 1
