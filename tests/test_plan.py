"""What `plan=true` says of a run before it, half-way and after it, and what the run then does."""

import json
import os
import pkgutil
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ome.cli import plan_table, stopwatch, timed_parts
from ome.cli.plan import Row, plan_of
from ome.cli.runner import selected_stages
from ome.cli.stopwatch import PAIR
from ome.cli.timed_parts import GROWTH, Part, Timed
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


def test_windows_that_all_scales_shrink_are_larger_and_fewer(town: Path) -> None:
    whole, half = (
        plan_in(town, f"prediction.scales=[{scale}]")["seg"].amounts.units["segmenter window"]
        for scale in (1.0, 0.5)
    )
    assert whole == 4 * half > 0  # type: ignore[operator]


def test_one_network_a_class_counts_as_many_trainings(town: Path) -> None:
    one, many = (
        plan_in(town, *more)["cam"].amounts for more in (["seed=7"], ["seed=7", "classifier=one_vs_all"])
    )
    assert many.steps == 5 * one.steps  # type: ignore[operator]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (455, "7 min 35 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
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


class Machine:
    """A machine on which work takes a fixed time, and a time for each pixel.

    Attributes:
        spent: Seconds that everything took.
        parts: The parts that were worked on.
    """

    def __init__(self, fixed: float, whole: float, of: Part, cold: float = 0.0) -> None:
        self._fixed = fixed
        self._pixel = whole / of.pixels
        self._cold = cold
        self.forward = whole / of.tiles / stopwatch.STEP
        self.spent = 0.0
        self.parts = list[Part]()

    def __call__(self, part: Part) -> float:
        seconds = self._fixed + self._pixel * part.pixels + self._cold * (not self.parts)
        self.parts.append(part)
        self.spent += seconds
        return seconds

    def repeats(self, monkeypatch: pytest.MonkeyPatch, whole: Part, limit: float, **named: bool) -> Timed:
        """Times it as a call."""
        import torch  # noqa: PLC0415

        monkeypatch.setattr(stopwatch, "_seconds", lambda work, _: work())
        monkeypatch.setattr("time.perf_counter", lambda: self.spent)
        return stopwatch.repeated(self, lambda part: part, whole, torch.device("cpu"), limit, **named)

    def trains(self, monkeypatch: pytest.MonkeyPatch, whole: Part, limit: float) -> Timed:
        """Times it as steps, of which the first is not timed."""
        import torch  # noqa: PLC0415

        def steps(*arguments: Any, most: int, limit: float, **_: object) -> list[float]:  # noqa: ANN401
            seconds, times = [self(arguments[2][0])], list[float]()
            while not stopwatch._suffices(times, most, limit):
                times.append(self(arguments[2][0]))
            return times or seconds

        monkeypatch.setattr(stopwatch, "_warm_steps", steps)
        monkeypatch.setattr("time.perf_counter", lambda: self.spent)
        monkeypatch.setattr(stopwatch, "fitted_precision", lambda *_: ("32-true", 0))
        config, module = compose_config(["trainer=cpu"]), torch.nn.Linear(1, 1)
        return stopwatch.timed_steps(config, module, lambda part: [part], whole, limit, self.forward)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "number"),
    [(0.01, 20), (0.4, 3), (1.5, 2)],
    ids=["quick", "three of them", "slow"],
)
def test_the_cold_time_is_left_out_and_few_warm_ones_are_taken(
    seconds: float, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Part(4, 256, 256)
    machine = Machine(0.0, seconds, whole, cold=0.5)
    assert machine.repeats(monkeypatch, whole, 4.5) == (pytest.approx(seconds / 4), 4 * number)
    assert machine.parts == [Part(1, 64, 64)] * 2 + [whole] * number  # a single small one warms up

    machine = Machine(0.0, seconds, whole)
    assert machine.trains(monkeypatch, whole, 8.0) == (pytest.approx(seconds), number)


@pytest.mark.parametrize("tiles", [1, 16])
@pytest.mark.parametrize(("height", "width"), [(48, 48), (500, 700), (5000, 7000)])
@pytest.mark.parametrize("seconds", [0.01, 30.0, 3000.0])
@pytest.mark.parametrize("fixed", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["a call", "a training"])
def test_a_plan_is_quick_however_long_the_work_takes(
    tiles: int,
    height: int,
    width: int,
    seconds: float,
    fixed: float,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The smallest part is always timed; a part is extrapolated to about the time of the whole."""
    whole, limit = Part(tiles, height, width), 3.0
    machine = Machine(fixed, seconds, whole)
    least = Machine(fixed, seconds, whole)(whole.within(0, 1 if kind == "a call" else PAIR))
    times = machine.repeats if kind == "a call" else machine.trains
    estimate = times(monkeypatch, whole, limit).seconds * (tiles if kind == "a call" else 1)
    assert machine.spent <= 2.5 * limit + 8 * GROWTH * least
    assert seconds / 3 <= estimate
    assert estimate <= 1.3 * (seconds + fixed) or machine.spent > limit / 3
    assert all(part[1:] == whole[1:] or not (part.height % 32 or part.width % 32) for part in machine.parts)


def test_tiles_that_are_worked_on_side_by_side_are_timed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Part(8, 512, 512)
    machine = Machine(0.0, 50.0, whole)
    assert machine.repeats(monkeypatch, whole, 4.0, side_by_side=True) == (pytest.approx(50 / 8), 0)
    assert {part.tiles for part in machine.parts} == {8}


@pytest.mark.parametrize("slow", [0, 1, 6])
def test_units_share_the_time_of_a_plan(slow: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, limits = [0.0], list[float]()
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    allowed = timed_parts.Allowance(7)
    for number in range(7):
        limits.append(allowed.limit())
        clock[0] += 100.0 if number < slow else 0.0
    assert limits[0] == timed_parts.SECONDS / 7
    assert limits[-1] == (timed_parts.LEAST_LIMIT if slow else timed_parts.SECONDS)


@pytest.mark.parametrize(("backbone", "stride"), [("resnet38d", 8), ("mit_b0", 16)])
def test_parts_of_tiles_fit_the_networks(
    backbone: str, stride: int, town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With parts of 32 pixels and no time for more, everything is still timed."""
    monkeypatch.setattr(timed_parts, "LEAST", 32)
    monkeypatch.setattr(timed_parts, "LEAST_LIMIT", 0.0)
    monkeypatch.setattr(timed_parts, "SECONDS", 0.0)
    network = [f"backbone={backbone}", f"backbone.output_stride={stride}", "backbone.weights=null"]
    status, printed = forked(town, *tiny(), *network, "plan=true")
    assert status == 0, printed
    assert "rough, of a part" in printed


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
    monkeypatch.setattr("ome.cli.timings.timings", lambda *_: {"CAM tile": Timed(1.0, 1)})
    _, lines = plan_table._timed(compose_config(["trainer=cpu"]), {"CAM tile"}, DataFacts())
    assert [line.count("about 20% of these times") for line in lines] == [1] * is_busy
