"""The benchmark of accuracy is made of ordinary commands; tests/test_pipeline.py has what it reads."""

import re
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import accuracy
import pytest

ROOT = Path(__file__).parents[1]
DOCS, SCRIPTS = ROOT / "docs", ROOT / "scripts"
OPTIONS = re.compile(r"(?:accuracy\.py|`(?=--))([^`]*--se(?:ts|eds)[^`]*)`")
DOCUMENTED = sorted(
    {words for page in DOCS.glob("*.md") for words in OPTIONS.findall(page.read_text("utf-8"))}
)


def parsed(typed: list[str], monkeypatch: pytest.MonkeyPatch) -> Namespace:
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--data", "/d", "--weights", "/w.pth", *typed])
    return accuracy.parsed()


@pytest.mark.parametrize("quick", [True, False])
def test_a_run_is_an_ordinary_command(quick: bool) -> None:
    options = Namespace(
        data=Path("/d"),
        weights=Path("/w.pth"),
        output=Path("out"),
        quick=quick,
        settings=["stage.cam.epochs=1"],
    )
    typed = accuracy.command("vaihingen_parts", 3, options)
    assert typed[1:5] == ["-m", "ome.run", "--config-dir", "/d/isprs_slices/settings"]
    assert {"experiment=accuracy", "seed=3", "dataset.tile.size=128", "name=vaihingen_parts_3"} < set(typed)
    assert ("stage.until=pseudo" in typed) == quick
    assert typed[-1] == "stage.cam.epochs=1"


@pytest.mark.parametrize(
    ("typed", "seeds", "output"),
    [([], [0, 1, 2], "accuracy"), (["--quick"], [0], "accuracy_quick"), (["--seeds", "4"], [4], "accuracy")],
)
def test_a_quick_comparison_takes_one_seed_and_a_folder_of_its_own(
    typed: list[str], seeds: list[int], output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = parsed(typed, monkeypatch)
    assert (options.seeds, options.output) == (seeds, Path(output))


@pytest.mark.parametrize("typed", DOCUMENTED)
def test_commands_of_the_pages_are_parsed(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(typed.replace("\\\n", " "))
    options = parsed(words, monkeypatch)
    assert {*options.sets} <= accuracy.SETS.keys()
    assert options.settings == [word for word in words if "=" in word]


def test_pages_have_commands() -> None:
    assert len(DOCUMENTED) > 5


def test_a_seed_or_set_that_is_typed_twice_is_no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(
        [*["--seeds", "1", "0", "1", "--sets", "vaihingen_parts", "vaihingen_parts"]], monkeypatch
    )
    assert (options.seeds, options.sets) == ([1, 0], ["vaihingen_parts"])


def test_paths_are_quoted_for_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(["--output", "my, runs", "--data", "a b"], monkeypatch)
    words = accuracy.command("vaihingen_parts", 0, options)
    assert {"output='my, runs'", "scenes='my, runs/scenes/vaihingen_parts'"} < set(words)
    assert "dataset.raw='a b/isprs_slices/vaihingen'" in words


def test_a_signal_ends_the_run_before_the_script(tmp_path: Path) -> None:
    child = f"import time, pathlib; pathlib.Path({str(tmp_path / 'started')!r}).touch(); time.sleep(60)"
    script = f"import accuracy, sys; sys.exit(-accuracy.run([sys.executable, '-c', {child!r}]))"
    with subprocess.Popen([sys.executable, "-c", script], cwd=SCRIPTS) as process:
        while not (tmp_path / "started").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == signal.SIGTERM


@pytest.mark.parametrize(
    "typed", [["seed=3"], ["output=/x"], ["--seeds", "0", "dataset=potsdam"], ["stage.until=cam"]]
)
def test_what_titles_the_tables_cannot_be_set(
    typed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(typed, monkeypatch)
    assert f"error: {typed[-1]} cannot be set: type --" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "status", "runs"), [(["plan=true"], 0, 9), ([], 3, 1)])
def test_plans_and_failed_runs_have_no_table(
    typed: list[str],
    status: int,
    runs: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The lines of the runs are all that is printed, and the status of a failed one is returned."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> int:
        commands.append(command)
        return status

    monkeypatch.setattr("accuracy.run", run)
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--data", "/d", "--weights", "/w.pth", *typed])
    with pytest.raises(SystemExit, match=f"^{status}$") if status else nullcontext():
        accuracy.main()
    assert len(commands) == runs
    assert capsys.readouterr() == ("", "")
