"""Every way to install or find the package: a clone, a wheel, and a folder above the clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(folder: Path, *words: str, path: Path | None = None) -> str:
    """What Python prints in a folder; `path` stands before the installed packages."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: setuptools would leave its build folder in the clone, and take stale files from there.
    for name in ("ome", "conf"):
        shutil.copytree(ROOT / name, folder / "clone" / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "clone")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    python(folder, "-m", "pip", "wheel", *options, str(folder / "clone"))
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_a_wheel_carries_every_configuration_and_template(wheel: Path) -> None:
    carried = {str(path.relative_to(wheel / "ome/conf")) for path in (wheel / "ome/conf").rglob("*.yaml")}
    assert carried == {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").rglob("*.yaml")}
    assert (wheel / "ome/report/templates/report.html.j2").exists()
    assert (wheel / "ome/tagging/page/index.html").exists()


def test_a_wheel_composes_its_own_configuration(wheel: Path, tmp_path: Path) -> None:
    place = python(tmp_path, "-c", "import ome; print(ome.__file__)", path=wheel)
    assert Path(place.strip()) == wheel / "ome/__init__.py"
    printed = python(tmp_path, "-m", "ome.run", "dataset=potsdam", "--cfg", "job", path=wheel)
    assert "name: potsdam" in printed


def test_the_folder_above_a_clone_does_not_hide_the_package(tmp_path: Path) -> None:
    (tmp_path / "ome/ome").mkdir(parents=True)
    printed = python(tmp_path, "-c", "import ome; print(ome.__version__)")
    assert printed.strip()
