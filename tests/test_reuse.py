"""A training that reads nothing of what has changed is kept when its stage runs again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from ome.cli.plan import plan_of
from ome.errors import UserError
from ome.pipeline.layout import HISTORY, NETWORK
from tests.conftest import compose_config, copy_until, tiny

Run = Callable[..., DictConfig]
RUN = Path("runs/synthetic_tu-test_resnet")
CRF = "crf.iterations=3"


def trainings(folder: Path) -> dict[str, tuple[bytes, ...]]:
    """The files of each training in the folder of a stage, by the name of its folder."""
    networks = sorted(folder.rglob(NETWORK))
    return {one.parent.name: (one.read_bytes(), (one.parent / HISTORY).read_bytes()) for one in networks}


@pytest.fixture
def run_again(tiny_run: Path, tmp_path: Path, run_here: Run) -> Run:
    """Runs stages again in the folder of a copy of a finished run."""
    copy_until("refine", tiny_run, tmp_path)
    return run_here


@pytest.mark.parametrize(
    ("stage", "changed", "kept"),
    [
        ("seg", ["prediction.stride=0.9"], {"weak", "full"}),
        ("seg", ["stage.seg.targets=[full]", "prediction.tta=d4"], {"full"}),
        ("seg", ["prediction.stride=0.9", "segmenter.recipe.lr=0.002"], set()),
        pytest.param("seg", ["seed=8"], set(), marks=pytest.mark.slow),
        ("cam", ["stage.cam.export.flip=false"], {"cam"}),
        pytest.param(
            "cam", ["stage.cam.export.flip=false", "stage.cam.clip=4"], set(), marks=pytest.mark.slow
        ),
    ],
)
def test_only_what_reads_the_change_is_trained_again(
    run_again: Run, capsys: pytest.CaptureFixture[str], stage: str, changed: list[str], kept: set[str]
) -> None:
    folder = RUN / stage
    before = trainings(folder)
    capsys.readouterr()
    words = [*tiny(stage), *changed]
    rows, _ = plan_of(compose_config(words), [stage])
    run_again(*words)
    after = trainings(folder if stage == "seg" else RUN / "cam")
    said = "".join(line for line in capsys.readouterr().out.splitlines() if "not trained again" in line)
    assert {name for name in after if f"{name}/{NETWORK}" in said or (said and stage == "cam")} == kept
    assert {name for name in after if after[name] == before[name]} >= kept
    assert (rows[0].amounts.steps == 0) == (kept == {*after})


def test_new_pseudo_masks_do_not_train_the_upper_bound_again(
    run_again: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trainings(RUN / "seg")
    run_again(*tiny("pseudo"), CRF)
    capsys.readouterr()
    run_again(*tiny("seg"), CRF)
    after, output = trainings(RUN / "seg"), capsys.readouterr().out
    assert f"reads has changed: full/{NETWORK}\n" in output
    assert (after["full"] == before["full"], after["weak"] == before["weak"]) == (True, False)
    run_again(*tiny("seg"), CRF, "force=true")
    assert trainings(RUN / "seg") == after, "as if it had been trained"
    assert "not trained again" not in capsys.readouterr().out


def test_a_damaged_network_is_not_kept(run_again: Run, capsys: pytest.CaptureFixture[str]) -> None:
    network = RUN / "seg/weak" / NETWORK
    content = network.read_bytes()
    network.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    run_again(*tiny("seg"), "prediction.stride=0.9")
    assert f"reads has changed: full/{NETWORK}\n" in capsys.readouterr().out
    assert network.read_bytes() == content


def test_an_interrupted_training_is_not_replaced_by_the_one_before_it(
    run_again: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*tiny("seg"), "prediction.stride=0.9"]
    with monkeypatch.context() as patch:
        patch.setattr("ome.training.fit.save_network", interrupted)
        with pytest.raises(UserError, match="interrupted"):
            run_again(*words, "force=true")
    capsys.readouterr()
    run_again(*words)
    output = capsys.readouterr().out
    assert "of an interrupted run" in output
    assert f"reads has changed: full/{NETWORK}\n" in output
    assert not list((RUN / "seg").rglob("*.ckpt"))


def interrupted(*_: object) -> None:
    raise UserError("interrupted")


@pytest.mark.parametrize("stage", ["seg", "predict"])
def test_how_many_windows_go_together_changes_no_result(
    run_again: Run, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    scene = next(Path("scenes").rglob("2_13.tif"))
    words = [*tiny(stage), *([f"stage.predict.scene={scene}"] if stage == "predict" else [])]
    run_again(*words)
    capsys.readouterr()
    run_again(*words, "prediction.batch=3")
    assert f"up to date {stage}" in capsys.readouterr().out
