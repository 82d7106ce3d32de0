"""The benchmark of accuracy is made of ordinary commands; tests/test_pipeline.py has what it reads."""

from argparse import Namespace
from pathlib import Path

import accuracy
import pytest


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
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--data", "/d", "--weights", "/w.pth", *typed])
    options = accuracy.parsed()
    assert (options.seeds, options.output) == (seeds, Path(output))
