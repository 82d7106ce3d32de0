"""The golden vectors hold, and the script that checks them notices every array that is wrong."""

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
from ome.files import read_json, write_json

GOLDEN = Path(__file__).parent / "golden"
SCRIPT = Path(check_golden.__file__)
FILES = [(path.name, kind) for kind in check_golden.KINDS for path in sorted(GOLDEN.glob(kind))]
QUICK = [
    (name, array)
    for name in ("pcm", "seam_losses", "msf_fusion", "cooccurrence", "metrics", "poly_lr", "uncertainty_b")
    for array in read_arrays(GOLDEN / f"{name}.npz")
]


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_golden_file_holds(name: str, kind: str) -> None:
    assert check_golden.check_file(GOLDEN / name, kind)


def test_every_file_is_of_some_kind() -> None:
    assert {name for name, _ in FILES} == {path.name for path in GOLDEN.iterdir()}


def _tampered(array: NDArray[Any]) -> NDArray[Any]:
    """Another array of the same shape and type: the same values, each one place further on."""
    if array.size == 1:
        return array + array.dtype.type(1)
    return np.roll(array.ravel(), 1).reshape(array.shape)


def _check_copy(tmp_path: Path, name: str, change: Callable[[dict[str, NDArray[Any]]], None]) -> bool:
    arrays = read_arrays(GOLDEN / name)
    change(arrays)
    write_arrays(tmp_path / name, arrays)
    kind = next(kind for file, kind in FILES if file == name)
    return bool(check_golden.check_file(tmp_path / name, kind))


@pytest.mark.parametrize(("file", "array"), QUICK)
def test_each_tampered_array_is_noticed(tmp_path: Path, file: str, array: str) -> None:
    assert not _check_copy(
        tmp_path, f"{file}.npz", lambda arrays: arrays.update({array: _tampered(arrays[array])})
    )


@pytest.mark.parametrize("array", ["image", "cam_rv"])
def test_tampered_forward_is_noticed(tmp_path: Path, array: str) -> None:
    assert not _check_copy(
        tmp_path, "seam_forward_7c.npz", lambda arrays: arrays.update({array: _tampered(arrays[array])})
    )


def test_tampered_state_dict_is_noticed(tmp_path: Path) -> None:
    shapes = read_json(GOLDEN / "seam_state_dict_5c.json")
    shapes["b3_1.conv_branch2a.weight"][0] += 1
    write_json(tmp_path / "seam_state_dict_5c.json", shapes)
    assert not check_golden.check_file(tmp_path / "seam_state_dict_5c.json", check_golden.STATE_DICT)


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
