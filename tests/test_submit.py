"""The path of a SLURM job, walked on this machine by submitit's local executor."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import forked, run_words, tiny

SCRIPT = Path(__file__).parents[1] / "scripts/submit.py"


def submitted(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SCRIPT), "--tasks", "2", "--logs", "logs", "--", *overrides]
    return run_words(folder, words)


@pytest.mark.slow
def test_a_submitted_run_of_two_processes_makes_the_files_of_one(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    words = [*tiny(), "stage.until=labels"]
    done = submitted(tmp_path, *words, "name=two", "trainer=ddp_cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done labels" in done.stdout
    logs = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "logs").glob("*_log.out"))]
    ranks = [re.findall(r"global_rank=(\d)\(2\)", log) for log in logs]
    assert ranks == [["0"], ["1"]]
    assert "done labels" not in logs[1]  # the leader speaks
    status, printed = forked(tmp_path, *words, "name=one")
    assert status == 0, printed
    assert "up to date prepare" in printed
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / "runs" / name / "labels").iterdir()}
        for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} <= {
        "manifest.json"
    }  # which says how long it took


@pytest.mark.slow
def test_a_submitted_run_that_fails_says_why(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    done = submitted(tmp_path, *tiny("labels"), "trainer=ddp_cpu")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert done.stdout.count("error: stage=labels needs the result of stage=prepare") == 1
