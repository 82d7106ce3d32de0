"""What `plan=true` says of a run before it, half-way and after it, and what the run then does."""

import json
import os
import pkgutil
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ome.cli import plan_table, stopwatch
from ome.cli.plan import Row, plan_of
from ome.cli.runner import selected_stages
from ome.cli.workload import DataFacts
from ome.files import read_csv
from ome.inference import pseudo_labels
from ome.pipeline.manifest import Manifest, compute_fingerprint
from ome.pipeline.registry import find_stage
from ome.progress import duration
from tests.conftest import compose_config, forked, tiny

RUN = Path("runs/synthetic_tu-test_resnet")
STAGES = ["prepare", "labels", "cam", "pseudo", "seg", "refine", "report"]


def plan_in(folder: Path, *overrides: str) -> dict[str, Row]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = compose_config([*tiny(), *overrides])
        return {row.name: row for row in plan_of(config, selected_stages(config))[0]}


def states(plan: dict[str, Row]) -> list[str]:
    return [row.forecast.state for row in plan.values()]


def contents(folder: Path) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if not path.name.startswith(".printed")
    }


def steps_in(folder: Path) -> int:
    """Optimiser steps of all trainings in a folder, from the last rows of their histories."""
    return sum(max(int(row["step"]) for row in read_csv(path)) for path in folder.rglob("history.csv"))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tiles are tagged; nothing is trained yet."""
    folder = tmp_path_factory.mktemp("planned")
    status, printed = forked(folder, *tiny(), "stage.until=labels")
    assert status == 0, printed
    return folder


def test_the_plan_of_a_fresh_run_writes_nothing_and_says_what_is_unknown(tmp_path: Path) -> None:
    status, printed = forked(tmp_path, *tiny(), "plan=true")
    assert status == 0, printed
    assert not contents(tmp_path)
    assert printed.count(" runs ") == len(STAGES)
    assert "stage.until=labels in place of plan=true" in printed
    assert "classifier step" in printed
    plan = plan_in(tmp_path)
    assert list(plan) == STAGES
    assert (plan["cam"].amounts.steps, plan["cam"].amounts.tiles) == (None, None)
    assert (plan["seg"].amounts.steps, plan["refine"].amounts.steps) == (8, 4)  # as the recipe says
    assert not contents(tmp_path)


@pytest.mark.slow
def test_the_run_does_what_the_plan_says(town: Path) -> None:
    before = contents(town)
    plan = plan_in(town)
    assert states(plan) == ["up to date"] * 2 + ["runs"] * 5
    assert all(row.is_known for row in plan.values())

    def stop() -> None:
        written = pseudo_labels.write_palette_png
        left = iter(range(6))  # two of each tile

        def break_off(*arguments: object) -> None:
            if next(left, None) is None:
                raise RuntimeError("the power is gone")
            written(*arguments)  # type: ignore[arg-type]

        pseudo_labels.write_palette_png = break_off  # type: ignore[assignment]

    status, printed = forked(town, *tiny(), "plan=true")
    assert (status, contents(town)) == (0, before), printed
    estimates = [line.split("│")[-2].strip() for line in printed.splitlines() if " runs " in line]
    assert len(estimates) == 5
    assert all(estimate[0].isdigit() for estimate in estimates[:-1])
    assert estimates[-1] == "not timed"

    status, printed = forked(town, *tiny(), sabotage=stop)
    assert status != 0
    half = plan_in(town)
    assert states(half) == ["up to date"] * 3 + ["resumes"] + ["runs"] * 3
    masks = list((town / RUN / "pseudo.partial/masks").rglob("*.png"))
    assert len(masks) == 3
    assert half["pseudo"].amounts.units["CRF tile"] == plan["pseudo"].amounts.tiles - 3  # type: ignore[operator]

    status, printed = forked(town, *tiny())
    assert status == 0, printed
    assert printed.count("plan of ") == 1
    for name in ("cam", "seg", "refine"):
        assert steps_in(town / RUN / name) == plan[name].amounts.steps
    assert len(list((town / RUN / "cam/cams").rglob("*.npz"))) == plan["cam"].amounts.units["CAM tile"]
    assert len(list((town / RUN / "pseudo/masks").rglob("*.png"))) == plan["pseudo"].amounts.tiles
    for name, row in plan.items():
        manifest = Manifest.read(town / row.forecast.artefact.folder)
        assert manifest is not None
        assert manifest.fingerprint == row.forecast.artefact.manifest.fingerprint, name

    finished = plan_in(town)
    assert states(finished) == ["up to date"] * 7
    assert [row.seconds({}) for row in finished.values()] == [0.0] * 7
    status, printed = forked(town, *tiny(), "plan=true")
    assert (status, printed.count("up to date"), printed.count("in all: 0 s")) == (0, 7, 1), printed
    status, printed = forked(town, *tiny())
    assert "plan of" not in printed  # every stage says it itself

    assert states(plan_in(town, "stage.pseudo.agreement=0.5")) == ["up to date"] * 3 + ["runs"] * 4
    assert states(plan_in(town, "force=true")) == ["runs"] * 7
    written = [row["name"] for row in read_csv(town / RUN / "cam/files.csv") if "cams/" in row["name"]]
    (town / RUN / "cam" / written[-3]).unlink()
    damaged = plan_in(town)
    assert states(damaged) == ["up to date"] * 2 + ["resumes"] + ["up to date"] * 4
    # What was written after it is made again as well.
    assert (damaged["cam"].amounts.steps, damaged["cam"].amounts.units["CAM tile"]) == (0, 3)
    status, printed = forked(town, *tiny(), "stage.until=cam")
    assert "1 of" in printed
    assert "are computed again" in printed
    assert states(plan_in(town)) == ["up to date"] * 7


def spellings(folder: Path, file: Path) -> dict[str, str]:
    link = folder / "link"
    link.symlink_to(file.parent)
    return {
        "absolute": str(file),
        "relative": f"./{file.relative_to(folder)}",
        "by a link": f"{link}/{file.name}",
    }


def test_a_result_holds_however_the_path_of_a_file_is_spelled(tmp_path: Path) -> None:
    """Also one whose fingerprint is of the path as it was typed."""
    file = tmp_path / "data/weights.pth"
    file.parent.mkdir()
    file.write_bytes(b"")
    fingerprints, typed = set(), spellings(tmp_path, file)
    for spelled in typed.values():
        plan = plan_in(tmp_path, f"backbone.weights={spelled}")
        fingerprints.add(plan["cam"].forecast.artefact.manifest.fingerprint)
    assert len(fingerprints) == 1
    file.write_bytes(b"others")
    cam = plan_in(tmp_path, f"backbone.weights={typed['relative']}")["cam"].forecast
    assert cam.artefact.manifest.fingerprint not in fingerprints

    _, manifest = cam.artefact
    older = json.loads(json.dumps(manifest.config).replace(str(file), typed["relative"]))
    fingerprint = compute_fingerprint(
        "cam", find_stage("cam", compose_config([])).version, older, manifest.inputs
    )
    Manifest("cam", fingerprint, older, manifest.inputs).write(tmp_path / RUN / "cam")
    states = {
        name: plan_in(tmp_path, f"backbone.weights={one}")["cam"].forecast.state
        for name, one in typed.items()
    }
    assert set(states.values()) == {"up to date"}


def test_a_result_holds_where_the_project_moves(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    (file := before / "data/weights.pth").parent.mkdir(parents=True)
    file.write_bytes(b"")
    cam = plan_in(before, "backbone.weights=data/weights.pth")["cam"].forecast.artefact
    cam.manifest.write(before / RUN / "cam")
    before.rename(after)
    for typed in ("data/weights.pth", str(after / "data/weights.pth")):
        assert plan_in(after, f"backbone.weights={typed}")["cam"].forecast.state == "up to date"
    (after / "data/weights.pth").rename(after / "data/others.pth")
    assert plan_in(after, "backbone.weights=data/others.pth")["cam"].forecast.state == "runs"
    (before / "data").mkdir(parents=True)
    (before / "data/weights.pth").write_bytes(b"")  # both are there: they are two files
    (after / "data/others.pth").rename(after / "data/weights.pth")
    assert plan_in(after, "backbone.weights=data/weights.pth")["cam"].forecast.state == "runs"


def test_a_plan_of_several_runs_is_refused(tmp_path: Path) -> None:
    status, printed = forked(tmp_path, "-m", *tiny(), "seed=0,1", "plan=true")
    assert status == 1
    assert "error: plan=true shows what one run would do: leave out -m" in printed
    assert not contents(tmp_path)


def test_what_a_stage_needs_is_asked_for_before(tmp_path: Path) -> None:
    status, printed = forked(tmp_path, *tiny("seg"), "plan=true")
    assert status == 1
    assert "run the same command with stage=prepare first" in printed
    assert not contents(tmp_path)


def test_steps_that_are_not_set_follow_from_the_tiles(town: Path) -> None:
    assert plan_in(town, "segmenter.recipe.steps=null")["seg"].amounts.steps == 2 * 400


def test_one_network_a_class_counts_as_many_trainings(town: Path) -> None:
    one, many = (
        plan_in(town, *more)["cam"].amounts for more in (["seed=7"], ["seed=7", "classifier=one_vs_all"])
    )
    assert many.steps == 5 * one.steps  # type: ignore[operator]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (0.25, "0.2 s"), (89, "89 s"), (90, "1.5 min"), (7200, "2.0 h")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def _clocked(seconds: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Lets calls take these seconds, one after the other; returns those that are left."""
    left = iter(seconds)

    def clocked(work: Callable[[], object], device: object) -> float:
        del device
        work()
        return next(left)

    monkeypatch.setattr(stopwatch, "_seconds", clocked)
    return left


@pytest.mark.parametrize(
    ("seconds", "each", "taken"),
    [
        ([2.0, 0.4, 1.9, 0.4], 0.4, 3),
        ([2.0, 4.0], 4.0, 1),
        ([2.0, 2.0, 2.0], 2.0, 2),
        ([2.0] + [0.01] * 20, 0.01, 20),
    ],
    ids=["a disturbed one", "slow", "rather slow", "quick"],
)
def test_the_cold_time_is_left_out_and_few_warm_ones_are_taken(
    seconds: list[float], each: float, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: PLC0415

    left, counts = _clocked(seconds, monkeypatch), list[int]()
    timed = stopwatch.repeated(lambda units: counts.append(len(units)), list("abcd"), torch.device("cpu"))
    assert timed == (each / 4, 4 * taken)
    assert not list(left)
    assert counts == [1] + [4] * taken  # a single one warms up

    ends = iter([5.0, *(5.0 + sum(seconds[1 : number + 1]) for number in range(1, len(seconds)))])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(ends))
    clock, trainer = stopwatch._Steps(stopwatch.MOST), SimpleNamespace(should_stop=False)
    while not trainer.should_stop:
        clock.on_train_batch_end(trainer, SimpleNamespace(device=torch.device("cpu")))  # type: ignore[arg-type]
    assert len(clock.warm) == taken


@pytest.mark.parametrize(
    ("seconds", "side_by_side", "called"),
    [
        ([100.0, 0.1, 4.0], False, [1, 1, 8]),
        ([5.0, 4.0, 8.0], False, [1, 1, 2]),
        ([50.0, 46.0, 46.0], False, [1, 1, 1]),
        ([50.0, 46.0], True, [1, 8]),
    ],
    ids=["only compiled for long", "some are too long", "one is too long", "all at the same time"],
)
def test_units_that_would_take_too_long_are_left_out(
    seconds: list[float], side_by_side: bool, called: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: PLC0415

    _clocked(seconds, monkeypatch)
    counts = list[int]()
    timed = stopwatch.repeated(
        lambda units: counts.append(len(units)), range(8), torch.device("cpu"), side_by_side=side_by_side
    )
    assert counts == called
    assert timed == (seconds[-1] / called[-1], called[-1])


@pytest.mark.parametrize(
    ("of_a_part", "batches", "expected"),
    [(0.5, [2, 16], (4.0, 1)), (2.0, [2, 10], (6.4, 0)), (5.5, [2], (44.0, 0))],
    ids=["whole steps", "a larger part", "a step of a minute"],
)
def test_a_long_step_is_estimated_from_a_part_of_it(
    of_a_part: float,
    batches: list[int],
    expected: tuple[float, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch  # noqa: PLC0415

    asked = list[int]()

    def steps(*_: object, batch: int, most: int) -> list[float]:
        del most
        asked.append(batch)
        return [of_a_part if batch == 2 else 4.0]

    monkeypatch.setattr(stopwatch, "_warm_steps", steps)
    monkeypatch.setattr(stopwatch, "fitted_precision", lambda *_: ("32-true", 0))
    timed = stopwatch.timed_steps(compose_config(["trainer=cpu"]), torch.nn.Linear(1, 1), [0], 16)  # type: ignore[arg-type]
    assert (timed, asked) == (expected, batches)


def _interrupted_by(number: int, owner: Any, name: str) -> None:  # noqa: ANN401 - a class or module
    """Makes this process receive a signal whenever it calls a function."""
    called = getattr(owner, name)

    def interrupting(*arguments: object, **named: object) -> object:
        os.kill(os.getpid(), number)
        return called(*arguments, **named)

    setattr(owner, name, interrupting)


@pytest.mark.parametrize(
    ("number", "line", "owner", "name"),
    [
        (signal.SIGINT, "error: interrupted", "training.seam.SeamClassifier", "training_step"),
        (signal.SIGTERM, "error: terminated", "training.seam.SeamClassifier", "training_step"),
        (signal.SIGINT, "error: interrupted", "cli.timings", "_crf"),
        (signal.SIGTERM, "error: terminated", "cli.runner", "show_timed_plan"),
    ],
)
def test_a_plan_ends_at_once_in_one_line(town: Path, number: int, line: str, owner: str, name: str) -> None:
    sabotage = partial(_interrupted_by, number, pkgutil.resolve_name(f"ome.{owner}"), name)
    before = contents(town)
    status, printed = forked(town, *tiny(), "stage.until=pseudo", "plan=true", sabotage=sabotage)
    assert (status, printed.splitlines()[-1]) == (128 + number, line), printed
    assert not re.search("Traceback|Keyboard|resumes", printed)
    assert contents(town) == before


@pytest.mark.parametrize(("load", "is_busy"), [(0.2, True), (1.5, False)])
def test_a_busy_machine_is_said(load: float, is_busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([(0.0, 0.0, 0.0, 0.0, 0.0), (10.0 * load, 0.0, 0.0, 0.0, 10.0)])
    monkeypatch.setattr(plan_table.os, "times", lambda: next(clock))
    monkeypatch.setattr("ome.cli.timings.timings", lambda *_: {"CAM tile": stopwatch.Timed(1.0, 1)})
    _, lines = plan_table._timed(compose_config(["trainer=cpu"]), {"CAM tile"}, DataFacts())
    assert [line.count("about 20% of these times") for line in lines] == [1] * is_busy
