"""Freed memory that stays with the process."""

import platform
import subprocess
import sys

import pytest

from ome.memory import keep_memory, returned_memory

PAGES = 25_600  # of 4 KiB, 100 MiB
LEAST = 40
"""Even of huge pages, which have 2 MiB, there are more."""

CODE = f"""
import resource, runpy, sys
sys.argv[1:] = ["--help"]
try: runpy.run_module({{module!r}}, run_name="__main__")
except SystemExit: pass
import numpy as np
from ome.memory import returned_memory
def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty({PAGES} * 4096, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
cleared()
first = cleared()
with returned_memory():
    cleared()  # still in what was kept
    within = cleared()
cleared()
print(first, within, cleared(), file=sys.stderr)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have other ways")
@pytest.mark.parametrize("chosen", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}], ids=["nothing", "a threshold"])
@pytest.mark.parametrize("module", ["ome", "ome.run"])
def test_the_pages_of_a_tensor_are_cleared_once_unless_chosen_otherwise(
    module: str, chosen: dict[str, str]
) -> None:
    code = CODE.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], env=chosen, capture_output=True, text=True, check=True
    )
    first, within, after = (int(count) for count in done.stderr.split()[-3:])
    assert within > LEAST
    assert (first < LEAST) == (after < LEAST) == (not chosen)


@pytest.mark.parametrize(
    "chosen", [{"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"}, {"MALLOC_ARENA_MAX": "2"}]
)
def test_the_users_choice_holds(chosen: dict[str, str]) -> None:
    assert not keep_memory(chosen)


def test_without_glibc_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ome.memory.ctypes.CDLL", lambda _: object())
    assert not keep_memory({})


def test_without_keeping_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ome.memory._set", lambda *_: pytest.fail("set"))
    with returned_memory():
        pass
