"""Compiled kernels whose cache on disk is damaged, or cannot be written, are compiled again."""

import errno
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ome.compiled import Cache

SOURCE = """
from ome.compiled import compiled

@compiled()
def twice(number):
    return 2 * number
"""


def load(path: Path) -> Any:  # noqa: ANN401 - a compiled function
    """The function of a module that is imported anew, as in another process."""
    spec = importlib.util.spec_from_file_location("kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("part", [None, 0.0, 0.5])
def test_a_cache_that_a_power_cut_has_damaged_is_written_again(
    source: Path, suffix: str, part: float | None
) -> None:
    assert load(source)(2) == 4
    (victim,) = source.parent.rglob(f"*.{suffix}")
    whole = victim.read_bytes()
    victim.unlink()
    if part is not None:
        victim.write_bytes(whole[: int(part * len(whole))])
    assert load(source)(2) == 4
    again = load(source)
    assert again(2) == 4
    assert sum(again.stats.cache_hits.values()) == 1


def refuse(error: Exception) -> Callable[..., None]:
    def refused(*_: object, **__: object) -> None:
        raise error

    return refused


def test_without_a_folder_for_the_cache_functions_are_compiled(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Cache, "__init__", refuse(RuntimeError("no locator available")))  # numba's words
    assert load(source)(2) == load(source)(2) == 4
    assert capsys.readouterr().out.count("are compiled at every start, which takes") == 1
    assert not [*source.parent.rglob("*.nb?")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_left_out(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", refuse(OSError(number, "no")))
    assert load(source)(2) == 4
    assert "be written (no); set NUMBA_CACHE_DIR to" in " ".join(capsys.readouterr().out.split())
