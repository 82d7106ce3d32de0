"""Small files of a run that are empty, cut off, or of another form: left out, or named in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ome.cli.commands import words_of
from ome.data.scene_index import SceneIndex
from ome.errors import UserError
from ome.files import read_csv, write_csv, write_json
from ome.inference.card import SegmenterCard
from ome.pipeline.artifacts import results_of
from ome.pipeline.manifest import Manifest
from ome.report.provenance import commands
from ome.scoring.rows import Row, read_rows, write_rows
from ome.scoring.scores import Scores
from ome.stages.reproduce import _configuration
from tests.trained_runs import make_run

RESOLVED = "dataset:\n  name: town\n  raw: /nowhere\nscenes: s\ninherit: null\nrun_dir: runs/{}\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with one of each of its small files, and two commands in its logs."""
    monkeypatch.chdir(tmp_path)
    folder = make_run(tmp_path / "run")
    write_rows(folder / "seg", [Row("weak", "test scenes", Scores(np.eye(2, dtype=np.int64), ("a", "b")))])
    write_csv(folder / "table.csv", ("name", "size"), [("a", 1), ("b", 2)])
    for number in (1, 2):
        log = folder / f"logs/{number}"
        (log / "config").mkdir(parents=True)
        (log / "config/overrides.yaml").write_text(f"- stage=all\n- seed={number}\n- lr={number}\n")
        (log / "config/hydra.yaml").write_text(
            f"hydra:\n  runtime:\n    cwd: {tmp_path}\n    config_sources: []\n    choices: {{preset: few}}\n"
            "  verbose: false\n"
        )
        (log / "resolved.yaml").write_text(RESOLVED.format(number))
    write_json(folder / "logs/cam/inherited.json", {"folder": "elsewhere/cam", "fingerprint": "0"})
    return folder


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    other = b"a,b\n1\n" if path.suffix == ".csv" else b"{}\n" if whole.lstrip()[:1] in b"[-" else b"[]\n"
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "form": other}[how])


FORMS = pytest.mark.parametrize("how", ["empty", "half", "form"])


@FORMS
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("seg/scores.json", lambda run: read_rows(run / "seg")),
        ("logs/cam/inherited.json", results_of),
        ("seg/manifest.json", lambda run: Manifest.read(run / "seg")),
        ("seg/weak/segmenter.json", lambda run: SegmenterCard.read(run / "seg/weak")),
        ("index.json", SceneIndex.read),
        ("table.csv", lambda run: read_csv(run / "table.csv")),
    ],
)
def test_what_cannot_be_read_is_named(run: Path, name: str, read: Callable[[Path], object], how: str) -> None:
    if not (run / name).exists():
        write_json(run / name, {"dataset": "town", "classes": {}})
    damage(run / name, how)
    with pytest.raises(UserError, match=rf"{name} is damaged \(.*\): ") as raised:
        read(run)
    assert "\n" not in str(raised.value)


@FORMS
@pytest.mark.parametrize("name", ["config/overrides.yaml", "config/hydra.yaml", "resolved.yaml"])
def test_a_damaged_command_is_skipped_for_the_one_before_it(run: Path, name: str, how: str) -> None:
    damage(run / "logs/2" / name, how)
    if name == "resolved.yaml":
        assert _configuration(run).run_dir == "runs/1"
    else:
        assert "seed=1" in words_of(["report", "run"])
    assert len(commands(run)) == (1 if name == "config/overrides.yaml" else 2)
    damage(run / "logs/1" / name, how)
    with pytest.raises(UserError, match="damaged"):
        _configuration(run) if name == "resolved.yaml" else words_of(["report", "run"])
