"""The least versions of pyproject.toml, and those of constraints.txt that the tests run with."""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parents[1]


def pins(lines: str) -> dict[str, str]:
    pairs = (line.partition("==") for line in lines.splitlines() if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in pairs}


def test_floors_are_the_limits_and_the_tested_versions_keep_them() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(r for e in project["optional-dependencies"].values() for r in e)]
    printed = subprocess.run(
        [sys.executable, "scripts/floors.py"], cwd=HERE, capture_output=True, text=True, check=True
    )
    floors, tested = pins(printed.stdout), pins((HERE / "constraints.txt").read_text())
    assert floors["albumentations"] == "2.0.8"
    assert "ome" not in floors
    for requirement in map(Requirement, named):
        name = canonicalize_name(requirement.name)
        if name != "ome":
            assert requirement.specifier.contains(tested[name]), f"{requirement}: {tested[name]} is tested"
        if ">=" in str(requirement.specifier):
            assert requirement.specifier.contains(floors[name])
            assert not requirement.specifier.contains(f"{floors[name]}.dev0"), "there is a lower one"
