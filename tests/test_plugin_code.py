"""The code of plug-ins is part of what a result depends on."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from ome.errors import UserError
from ome.pipeline.engine import execute
from ome.pipeline.stage import Stage, Work
from ome.plugins import code_of, codes_in
from tests.test_predict import TRAINED, make_run

THIN = "class ThinNet:\n    class Inner:\n        pass\n"


@pytest.fixture
def thin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meadow_thin.py").write_text(THIN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "meadow_thin.py"


def test_the_code_of_a_plugin_is_that_of_its_file(thin: Path, tmp_path: Path) -> None:
    before = code_of("meadow_thin.ThinNet")
    assert before is not None
    assert code_of("meadow_thin.ThinNet.Inner") == before
    (tmp_path / "plug-1.dist-info").mkdir()
    (tmp_path / "plug-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (tmp_path / "plug-1.dist-info/entry_points.txt").write_text(
        "[ome.segmenters]\nthin = meadow_thin:ThinNet\n"
    )
    sys.path.append(str(tmp_path / "other"))  # entry points are read again where the path has changed
    try:
        settings = {"segmenter": {"name": "thin"}, "losses": [{"_target_": "meadow_thin.ThinNet"}], "seed": 0}
        assert codes_in(settings) == {"thin": before, "meadow_thin.ThinNet": before}
    finally:
        sys.path.pop()
    thin.write_text(THIN + "\n")
    assert code_of("meadow_thin.ThinNet") not in {None, before}
    assert "meadow_thin" not in sys.modules


def test_all_modules_of_a_package_count(thin: Path) -> None:
    package = thin.parent / "meadow_package"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    codes = {code_of("meadow_package.Net")}
    for name in ("net.py", "parts/block.py"):
        (package / name).write_text("x = 1\n")
        codes.add(code_of("meadow_package.Net"))
    assert code_of("meadow_package.parts.block.Block") in codes
    assert len(codes - {None}) == 3
    assert "meadow_package" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "fpn",
        "vit_base_patch16_224.mae",
        "ome.stages.cam.STAGE",
        "torch.nn.Linear",
        "nowhere.Net",
        "json",
        "",
        ".",
    ],
)
def test_what_is_no_plugin_has_no_code(name: str) -> None:
    assert code_of(name) is None
    assert codes_in({"segmenter": {"name": name}}) == {}


def test_a_stage_runs_again_when_the_code_of_a_plugin_changes(
    thin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(work: Work) -> dict[str, Any]:
        del work
        return {}

    stage = Stage("trained", run, config_keys=("segmenter",))
    config = DictConfig(
        {
            "stage": {"name": "trained"},
            "segmenter": {"name": "fpn", "_target_": "meadow_thin.ThinNet"},
            "run_dir": str(tmp_path),
            "scenes": str(tmp_path / "scenes"),
            "inherit": None,
        }
    )
    assert [execute(stage, config) for _ in range(2)] == [True, False]
    thin.write_text(THIN + "# changed\n")
    assert execute(stage, config)
    printed = " ".join(capsys.readouterr().out.split())
    assert "(changed: the code of meadow_thin.ThinNet)" in printed


def test_a_network_is_not_loaded_into_other_code(thin: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    folder = tmp_path / "run/seg/weak"
    card = replace(TRAINED, segmenter="meadow_thin.ThinNet", code=code_of("meadow_thin.ThinNet"))
    card.write(folder)
    thin.write_text(THIN + "# changed\n")
    with pytest.raises(
        UserError, match=r"the code of meadow_thin.ThinNet has changed since the network in .*/weak"
    ):
        card.load(folder)
