"""The benchmark of accuracy is made of ordinary commands; tests/test_pipeline.py has what it reads."""

import re
import shlex
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from subprocess import CompletedProcess

import accuracy
import pytest

DOCS = Path(__file__).parents[1] / "docs"
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

    def run(command: list[str], *, check: bool) -> CompletedProcess[bytes]:
        assert not check
        commands.append(command)
        return CompletedProcess(command, status)

    monkeypatch.setattr("accuracy.subprocess.run", run)
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--data", "/d", "--weights", "/w.pth", *typed])
    with pytest.raises(SystemExit, match=f"^{status}$") if status else nullcontext():
        accuracy.main()
    assert len(commands) == runs
    assert capsys.readouterr() == ("", "")
