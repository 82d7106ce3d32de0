"""The benchmark of accuracy reads what runs leave, and counts it as the runs themselves do."""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import accuracy

from ome.files import read_json
from tests.conftest import tiny

Run = Callable[..., DictConfig]


def test_tables_say_what_the_runs_have(run_here: Run) -> None:
    for seed in (0, 1):
        run_here(*tiny(), "stage.until=seg", f"name=set_{seed}", f"seed={seed}", "scenes=scenes")
    runs = [accuracy.finished(Path(f"runs/set_{seed}"), Path("scenes")) for seed in (0, 1)]
    weak, full = "weak segmentation", "pixel-supervised segmentation"
    miou = [[row.rows[title].scores.miou for row in runs] for title in (weak, full)]
    assert [run.reached(weak) for run in runs] == pytest.approx([w / f for w, f in zip(*miou, strict=True)])
    rows = accuracy.table_of("set", runs).splitlines()
    (line,) = (row for row in rows if row.startswith(f"| {weak}"))
    assert f"{100 * np.mean(miou[0]):.2f} ± {100 * np.std(miou[0], ddof=1):.2f}" in line
    assert "2 seeds" in rows[-1]
    # Every pixel of the pseudo masks is right or wrong at one weight.
    right, wrong = runs[0].errors.sum(axis=0)
    assert right / (right + wrong) == pytest.approx(runs[0].rows["pseudo mask"].scores.oa, abs=1e-9)
    assert accuracy.weight_table("set", runs[0].errors).count("\n") > 1
    manifests = [
        read_json(Path("runs/set_0") / stage / "manifest.json")
        for stage in ("labels", "cam", "pseudo", "seg")
    ]
    assert runs[0].seconds > sum(manifest["seconds"] for manifest in manifests)


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
