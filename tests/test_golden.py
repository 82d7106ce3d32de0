"""The golden vectors hold, and the script that checks them notices what is wrong."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check_golden
import numpy as np
import pytest
from numpy.typing import NDArray

from ome.data.array_files import read_arrays, write_arrays

GOLDEN = Path(__file__).parent / "golden"
SCRIPT = Path(check_golden.__file__)
FILES = [(path.name, kind) for kind in check_golden.KINDS for path in sorted(GOLDEN.glob(kind))]


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_golden_file_holds(name: str, kind: str) -> None:
    assert check_golden.check_file(GOLDEN / name, kind)


def test_every_file_is_of_some_kind() -> None:
    assert {name for name, _ in FILES} == {path.name for path in GOLDEN.iterdir()}


def _check_copy(tmp_path: Path, name: str, change: Callable[[dict[str, NDArray[Any]]], None]) -> bool:
    arrays = read_arrays(GOLDEN / name)
    change(arrays)
    write_arrays(tmp_path / name, arrays)
    kind = next(kind for file, kind in FILES if file == name)
    return bool(check_golden.check_file(tmp_path / name, kind))


def test_a_tampered_array_is_noticed(tmp_path: Path) -> None:
    assert not _check_copy(
        tmp_path, "pcm.npz", lambda arrays: arrays.update(refined=arrays["refined"][..., ::-1])
    )


def test_arrays_that_are_missing_or_unknown_are_noticed(tmp_path: Path) -> None:
    assert not _check_copy(tmp_path, "metrics.npz", lambda arrays: arrays.pop("recall_axis1"))
    assert not _check_copy(tmp_path, "metrics.npz", lambda arrays: arrays.update(extra=np.zeros(1)))
    assert not _check_copy(tmp_path, "poly_lr.npz", lambda arrays: arrays.update(lr=arrays["lr"] * np.nan))


def test_broken_folder_fails_without_traceback(tmp_path: Path) -> None:
    for name in ("poly_lr.npz", "cooccurrence.npz", "seam_state_dict_5c.json"):
        shutil.copy(GOLDEN / name, tmp_path / name)
    for name in ("cooccurrence.npz", "seam_state_dict_5c.json"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SCRIPT.parents[1]), "PATH": "", "HOME": str(tmp_path)},
    )
    assert finished.returncode == 1
    assert "Traceback" not in finished.stdout + finished.stderr
    lines = finished.stdout.splitlines()
    assert (
        sum("FAIL" in line and name in line for line in lines for name in ("cooccurrence", "state_dict")) == 2
    )
    assert (
        sum(line.endswith("FAIL") and "no such file" in line for line in lines) == len(check_golden.KINDS) - 3
    )
    assert any(line.startswith("poly_lr.npz") and line.endswith("ok") for line in lines)
