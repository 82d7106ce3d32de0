"""The stage affinity on the synthetic town: what it leaves, who reads it, and when it runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from ome.cli.launch import launch
from ome.cli.runner import selected_stages
from ome.config.checks import check_settings
from ome.data.cams import read_cams
from ome.data.scene_index import SceneIndex
from ome.errors import UserError
from ome.geo.raster import read_png
from ome.ignore import IGNORE
from ome.pipeline.layout import cam_path, read_tag_table
from ome.pipeline.manifest import Manifest
from ome.scoring.rows import read_rows
from ome.stages import affinity
from tests.conftest import compose_config, copy_until, forked_pair, tiny

RUN = Path("runs/synthetic_tu-test_resnet")
Run = Callable[..., DictConfig]


def run(*overrides: str) -> None:
    launch(compose_config(overrides))


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run that has come to the CAMs."""
    folder = tmp_path_factory.mktemp("classified")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(*tiny(), "stage.until=cam", "stage.cam.epochs=1")
        yield folder


@pytest.fixture
def _in_a_run_with_cams(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy_until("cam", tiny_run, tmp_path))


@pytest.mark.usefixtures("_in_a_run_with_cams")
def test_pseudo_masks_of_walked_cams_need_the_walk() -> None:
    with pytest.raises(
        UserError, match=r"stage=affinity, which is not in .*run the same command with stage=affinity"
    ):
        run(*tiny("pseudo"), "stage.pseudo.cams=affinity")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage.affinity.radius=1", r"stage\.affinity\.radius=1: expected a whole number of at least 2"),
        ("stage.affinity.alphas=[0,4]", r"stage\.affinity\.alphas=\[0, 4\]: expected a list"),
    ],
)
@pytest.mark.usefixtures("_in_a_run_with_cams")
def test_settings_without_sense_are_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(*tiny("affinity"), override)


@pytest.mark.slow
def test_an_interrupted_walk_goes_on_and_is_read(classified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial, done = classified / RUN / "affinity.partial", classified / RUN / "affinity"
    walk, walked = affinity.walk_cams, []

    def stop_after_five(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        walked.append(1)
        if len(walked) == 6:
            raise RuntimeError("killed")
        return walk(*args, **kwargs)

    monkeypatch.setattr(affinity, "walk_cams", stop_after_five)
    with pytest.raises(RuntimeError, match="killed"):
        run(*tiny("affinity"))
    monkeypatch.undo()
    finished = {path.relative_to(partial): path.stat().st_mtime_ns for path in partial.glob("*/*/*")}
    assert sum(path.parts[0] == "cams" for path in finished) == 5
    assert sum(path.parts[0] == "labels" for path in finished) == 32
    run(*tiny("affinity"))
    assert {path: (done / path).stat().st_mtime_ns for path in finished} == finished

    index = SceneIndex.read(classified / "scenes/synthetic_rgb_full")
    tagged = read_tag_table(classified / RUN / "labels", index).select("train", tagged=True)
    moved = 0
    for tile, tags in zip(tagged.tiles, tagged.tags, strict=True):
        before, after = (
            read_cams(cam_path(classified / RUN / stage, tile), len(tags)) for stage in ("cam", "affinity")
        )
        assert after.shape == (len(tags), tile.height, tile.width)
        assert 0 <= after.min() <= after.max() <= 1
        assert not after[tags == 0].any()
        visible = before.mean(axis=(1, 2)) > 0.01  # a class in a few pixels is spread thinner than 1e-5
        # The walk of a network that has hardly learnt spreads a class evenly, down to rounding.
        assert after[visible].any(axis=(1, 2)).all()
        moved += not np.allclose(before, after, atol=0.01)
        label = read_png(done / "labels" / tile.scene / f"{tile.name}.png")
        assert set(np.unique(label)) <= {*np.flatnonzero(tags), IGNORE}
    assert moved > len(tagged.tiles) / 2
    assert [row.name for row in read_rows(done)] == ["CAM + random walk"]

    run(*tiny("pseudo"), "stage.pseudo.cams=affinity")
    manifest = Manifest.read(classified / RUN / "pseudo")
    assert manifest is not None
    assert set(manifest.inputs) == {"prepare", "labels", "affinity"}
    for tile in tagged.tiles[:4]:
        cams = read_cams(cam_path(done, tile), index.palette.num_classes)
        argmax = read_png(classified / RUN / "pseudo/cam_argmax" / tile.scene / f"{tile.name}.png")
        np.testing.assert_array_equal(argmax, cams.argmax(axis=0))

    run(*tiny("report"))
    results = json.loads((classified / RUN / "report/results.json").read_text())
    assert list(results) == ["CAM", "CAM + random walk", "pseudo mask"]
    page = (classified / RUN / "report/report.html").read_text()
    walked = page.count(" after the random walk of 2_1")
    assert 0 < 2 * walked == page.count('alt="CAM of ')


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(classified: Path) -> None:
    """AffinityNet and its walk, then the ablation of both kinds of maps, from the CAMs of one process."""
    run(*tiny("affinity"))
    one, two, again = (classified / "runs" / name for name in (RUN.name, "two", "again"))
    for stage in ("labels", "cam"):
        shutil.copytree(one / stage, two / stage)
    story = [*tiny(), "stage.cam.epochs=1", "stage.pseudo.cams=affinity", "stage.until=ablation"]
    # An odd number of tiles: one process has one more than the other.
    status, printed = forked_pair(classified, *story, "stage.ablation.tiles=7", "name=two", "trainer=ddp_cpu")
    assert status == 0, printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("done ")] == [
        "affinity",
        "pseudo",
        "ablation",
    ]
    assert Manifest.read(two / "affinity").files == Manifest.read(one / "affinity").files  # type: ignore[union-attr]
    names = {path.relative_to(one) for path in (one / "affinity").rglob("*") if path.is_file()}
    assert names == {path.relative_to(two) for path in (two / "affinity").rglob("*") if path.is_file()}
    for name in (name for name in names if "labels" in name.parts):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    ours, theirs = (torch.load(folder / "affinity/network.pt", weights_only=True) for folder in (one, two))
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    rows, expected = (read_rows(folder / "affinity")[0].scores.matrix for folder in (two, one))
    np.testing.assert_array_equal(rows.sum(axis=1), expected.sum(axis=1))
    # Two classes are nearly equal in many pixels, so that rounding decides the argmax, but not the maps.
    for path in (name for name in names if name.suffix == ".npz"):
        ours, theirs = (read_cams(folder / path, len(rows)) for folder in (one, two))
        np.testing.assert_allclose(theirs, ours, atol=0.05)
    # Counts of the same maps are those of one process to the last pixel, and so is what is written of them.
    run(*tiny("ablation"), "stage.ablation.tiles=7", "name=again", "inherit=runs/two", "force=true")
    files = {path.name: path.read_bytes() for path in (two / "ablation").iterdir()}
    assert len(files) == 19
    for name in files.keys() - {"manifest.json", "files.csv"}:
        assert (again / "ablation" / name).read_bytes() == files[name], name


@pytest.mark.parametrize(
    ("overrides", "last", "runs"),
    [
        ([], "report", False),
        (["stage.pseudo.cams=affinity"], "report", True),
        (["stage.pseudo.cams=affinity"], "cam", False),
        ([], "affinity", True),
        (["experiment=ablation"], "ablation", True),
        (["experiment=ablation", "stage.ablation.random_walk=false"], "ablation", False),
        (["experiment=ablation"], "report", False),
    ],
)
def test_all_runs_the_walk_where_it_is_wanted(overrides: list[str], last: str, *, runs: bool) -> None:
    names = ["prepare", "labels", "cam", "affinity", "pseudo", "ablation", "seg", "refine", "report"]
    story = selected_stages(compose_config([*tiny(), *overrides, f"stage.until={last}"]))
    assert ("affinity" in story) is runs
    assert [name for name in names if name in story] == story
    assert set(names[: names.index(last) + 1]) - set(story) <= {"affinity", "ablation"}


def test_unknown_cams_are_refused_before_anything_runs(run_here: Run) -> None:
    with pytest.raises(UserError, match=r"stage\.pseudo\.cams=walked is neither cam, affinity nor a folder"):
        run_here(*tiny(), "stage.pseudo.cams=walked")
    assert not Path("scenes").exists()


def test_a_walk_of_several_networks_is_refused_before_they_are_trained() -> None:
    config = compose_config([*tiny(), "experiment=ablation", "classifier=one_vs_all"])
    with pytest.raises(UserError, match=r"trains one per class: .*stage\.ablation\.random_walk=false"):
        check_settings(config, selected_stages(config))
    assert "affinity" not in selected_stages(compose_config([*tiny(), "classifier=one_vs_all"]))


@pytest.mark.parametrize(("rounds", "walks"), [(0, False), (1, True)])
def test_a_round_that_is_not_run_needs_no_walk(rounds: int, walks: bool) -> None:
    typed = ["stage.refine.cams=affinity", "stage.refine.confident=null", f"stage.refine.rounds={rounds}"]
    assert ("affinity" in selected_stages(compose_config([*tiny(), *typed]))) == walks
