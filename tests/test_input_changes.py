"""What a stage reads is replaced or edited while the stage runs."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from omegaconf import DictConfig

from ome.data.raw import RawLayout
from ome.data.scene_index import SceneIndex
from ome.distributed import local
from ome.distributed.collectives import barrier, is_rank_zero, rank
from ome.distributed.local import run_in_processes
from ome.errors import UserError
from ome.files import write_text
from ome.pipeline.engine import execute
from ome.pipeline.forecast import forecast_of
from ome.pipeline.locks import locked
from ome.pipeline.manifest import Manifest, identity
from ome.pipeline.marks import PARTIAL
from ome.pipeline.parts import execute_parts
from ome.pipeline.stage import Stage, Work
from ome.stages import predict, prepare
from tests.test_custom import write_photographs
from tests.test_distributed import forking
from tests.test_inputs import LABELS, Run
from tests.test_maps import random_scene, write
from tests.test_predict import BASE, classes_of
from tests.test_stages import config
from tests.trained_runs import make_run
from tests.web import serving

BEFORE = Manifest("before", "a", {}, {}, {"loss": float("nan")}, seconds=3.0)


def reading(folder: Path, meanwhile: Callable[[], object]) -> tuple[Stage, list[bool]]:
    """A stage that reads a result and two files.

    Args:
        folder: Where these are, and what it writes.
        meanwhile: What happens while it runs for the first time.

    Returns:
        The stage, and whether each of its runs resumed an earlier one.
    """
    BEFORE.write(folder / "before")
    for name in ("scene", "sidecar"):
        (folder / name).write_text("as it was")
    resumed: list[bool] = []

    def run(work: Work) -> dict[str, Any]:
        half = work.folder / "half"
        resumed.append(half.exists())
        write_text(half, "half")
        if len(resumed) == 1:
            meanwhile()
        return {}

    def files(_: DictConfig) -> list[Any]:
        return ["an address", *identity(folder / "scene"), *map(identity, folder.glob("side*"))]

    return Stage("made", run, requires=("before",), external_files=files), resumed


def edit(path: Path) -> None:
    """Other content of the same size."""
    path.write_text("As it was")
    os.utime(path, ns=(1, 1))


def end_after(change: Callable[[Path], object], error: BaseException, folder: Path) -> None:
    change(folder)
    raise error


CHANGES: dict[str, Callable[[Path], object]] = {
    "before": lambda folder: replace(BEFORE, fingerprint="b").write(folder / "before"),
    # Replaced, and computed anew as it was: another time.
    "before, twice": lambda folder: replace(BEFORE, seconds=4.0).write(folder / "before"),
    "before, removed": lambda folder: (folder / "before/manifest.json").unlink(),
    "scene": lambda folder: edit(folder / "scene"),
    "sidecar": lambda folder: edit(folder / "sidecar"),
    "sidecar, removed": lambda folder: (folder / "sidecar").unlink(),
}


@pytest.mark.parametrize("error", [None, FileNotFoundError("a tile"), KeyboardInterrupt()])
@pytest.mark.parametrize("what", CHANGES)
def test_a_stage_whose_inputs_change_leaves_nothing_that_is_taken_as_whole(
    tmp_path: Path, what: str, error: BaseException | None
) -> None:
    change = CHANGES[what] if error is None else partial(end_after, CHANGES[what], error)
    stage, resumed = reading(tmp_path, partial(change, tmp_path))
    path, files = tmp_path / what.partition(",")[0], (tmp_path / "scene", tmp_path / "sidecar")
    times = [file.stat().st_mtime_ns for file in files]
    line = rf"^{path} changed while stage=made ran: type the same command again$"
    interrupted = isinstance(error, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt if interrupted else UserError, match="" if interrupted else line):
        execute(stage, config(tmp_path))
    assert not (tmp_path / "made").exists()
    # Everything is put back with its time, so that the fingerprint is that of the first command.
    BEFORE.write(tmp_path / "before")
    for file, time in zip(files, times, strict=True):
        file.write_text("as it was")
        os.utime(file, ns=(time, time))
    assert execute(stage, config(tmp_path))
    assert resumed == [False, False]
    assert not execute(stage, config(tmp_path), verify=True)


@pytest.mark.parametrize("what", ["a new file", "a file of a viewer", "another run", "nothing"])
def test_what_a_stage_does_not_depend_on_may_change(tmp_path: Path, what: str) -> None:
    files = {"a new file": "side.new", "a file of a viewer": "before/map.tif.aux.xml", "another run": "b/x"}

    def meanwhile() -> None:
        if what in files:
            (tmp_path / files[what]).parent.mkdir(exist_ok=True)
            (tmp_path / files[what]).write_text("new")

    stage, resumed = reading(tmp_path, meanwhile)
    assert execute(stage, config(tmp_path))
    assert resumed == [False]


def copied(folder: Path, what: str) -> None:
    for name in ("scene", "sidecar"):
        os.utime(folder / name, (9, 9))
    if what == "edited":
        edit(folder / "scene")
    if what == "of another size":
        (folder / "scene").write_text("as it was before")
    if what == "another input":
        replace(BEFORE, fingerprint="b").write(folder / "before")
    if what == "record damaged":
        (folder / "logs/made/started.json").write_text("{")
    if what == "record of another program":
        (folder / "logs/made/started.json").write_text('{"a": 1}')


@pytest.mark.parametrize(
    ("what", "resumes"),
    [
        ("copied", True),
        ("edited", False),
        ("of another size", False),
        ("another input", False),
        ("record damaged", False),
        ("record of another program", False),
    ],
)
def test_a_killed_stage_resumes_although_its_files_were_copied(
    tmp_path: Path, what: str, resumes: bool
) -> None:
    """As weights on the local disk of each machine on which a job is continued."""
    stage, resumed = reading(tmp_path, partial(end_after, lambda _: None, KeyboardInterrupt(), tmp_path))
    with pytest.raises(KeyboardInterrupt):
        execute(stage, config(tmp_path))
    copied(tmp_path, what)
    assert forecast_of(stage, config(tmp_path), {}).state == ("resumes" if resumes else "runs")
    assert execute(stage, config(tmp_path))
    assert resumed == [False, resumes]
    assert not execute(stage, config(tmp_path))
    copied(tmp_path, "copied")
    assert not execute(stage, config(tmp_path)), "the result has the hashes of its own files"
    assert execute(stage, config(tmp_path), force=True)
    assert resumed[2:] == [False]


def test_an_input_that_is_being_removed_is_named(tmp_path: Path) -> None:
    """The manifest is the last file that is removed."""
    first = Stage("before", lambda work: {"characters": (work.folder / "text").write_text("a text")})
    execute(first, config(tmp_path))

    def run(work: Work) -> dict[str, Any]:
        (tmp_path / "before/text").unlink()
        return {"text": (work.inputs["before"] / "text").read_text()}

    with pytest.raises(UserError, match=r"/before changed while stage=made ran"):
        execute(Stage("made", run, requires=("before",)), config(tmp_path))


def test_a_failure_of_another_cause_is_that_failure_and_resumes(tmp_path: Path) -> None:
    def broken() -> None:
        raise UserError("broken")

    stage, resumed = reading(tmp_path, broken)
    with pytest.raises(UserError, match=r"^broken$"):
        execute(stage, config(tmp_path))
    execute(stage, config(tmp_path))
    assert resumed == [False, True]


def test_an_inherited_input_is_watched_where_it_lies(tmp_path: Path) -> None:
    stage, _ = reading(tmp_path / "first", lambda: CHANGES["before"](tmp_path / "first"))
    settings = config(tmp_path / "second")
    settings.inherit = str(tmp_path / "first")
    with pytest.raises(UserError, match=rf"^{tmp_path}/first/before changed while stage=made ran"):
        execute(stage, settings)


def test_a_part_fails_alone(tmp_path: Path) -> None:
    """The last part is computed from what is there then."""
    stage, _ = reading(tmp_path, lambda: edit(tmp_path / "scene"))
    concluded: list[list[str]] = []
    stage = replace(
        stage,
        part=lambda one: str(one.stage.scene),
        conclude=lambda _, mapped, failed: concluded.extend([[*mapped], [*failed]]),
    )
    parts = {f"city {number}": config(tmp_path, scene=number) for number in range(2)}
    with pytest.raises(UserError, match=rf"1 of 2 failed\ncity 0: {tmp_path}/scene changed while"):
        execute_parts(stage, config(tmp_path), parts)
    assert concluded == [["city 1"], ["city 0"]]
    execute_parts(stage, config(tmp_path), parts)
    assert concluded[2:] == [["city 0", "city 1"], []]


def test_a_part_that_another_command_finishes_meanwhile_counts(tmp_path: Path) -> None:
    stage, _ = reading(tmp_path, lambda: None)
    concluded: list[list[str]] = []
    held = ExitStack()
    stage = replace(
        stage,
        run=lambda _: held.close() or {},  # type: ignore[func-returns-value]  # the second part lets go of the first
        part=lambda one: str(one.stage.scene),
        conclude=lambda _, mapped, failed: concluded.extend([[*mapped], [*failed]]),
    )
    parts = {f"city {number}": config(tmp_path, scene=number) for number in range(2)}
    folder = stage.folder(parts["city 0"])
    held.enter_context(locked(folder.with_name(f".{folder.name}.lock"), "city 0", wait=False))
    execute_parts(stage, config(tmp_path), parts)
    assert concluded == [["city 0", "city 1"], []]


def _of_two(folder: Path, by: int) -> None:
    """Writes how this process ended, while one process changes an input."""

    def run(_: Work) -> dict[str, Any]:
        if rank() == by:
            CHANGES["before"](folder)
        barrier()
        return {}

    try:
        execute(Stage("made", run, requires=("before",)), config(folder))
    except UserError as error:
        (folder / f"{rank()}.txt").write_text(str(error))
    barrier()
    assert is_rank_zero() == (rank() == 0)


@pytest.mark.parametrize("by", [0, 1])
def test_all_processes_stop_with_the_same_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: int
) -> None:
    monkeypatch.setattr(local, "start_processes", forking)
    BEFORE.write(tmp_path / "before")
    run_in_processes(2, partial(_of_two, tmp_path, by), gpu=False)
    lines = [(tmp_path / f"{number}.txt").read_text() for number in range(2)]
    assert lines == [f"{tmp_path}/before changed while stage=made ran: type the same command again"] * 2
    assert not (tmp_path / "made").exists()


def test_a_raw_image_that_is_edited_while_it_is_prepared_is_prepared_again(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(tmp_path)
    image = min((tmp_path / "images").iterdir())
    other = max((tmp_path / "images").iterdir()).read_bytes()
    prepare_scenes = prepare.prepare_scenes

    def edited(layout: RawLayout, raw: Path, folder: Path, *, skip_broken: bool) -> SceneIndex:
        index = prepare_scenes(layout, raw, folder, skip_broken=skip_broken)
        image.write_bytes(other)
        return index

    monkeypatch.setattr(prepare, "prepare_scenes", edited)
    with pytest.raises(UserError, match=r"images/.* changed while stage=prepare ran"):
        run_here(*LABELS)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    run_here(*LABELS)
    assert "done prepare" in capsys.readouterr().out
    prepared = min((tmp_path / "scenes").rglob("images/*.tif"))
    last = max((tmp_path / "scenes").rglob("images/*.tif"))
    with rasterio.open(prepared) as first, rasterio.open(last) as second:
        np.testing.assert_array_equal(first.read(), second.read())


@pytest.mark.parametrize("answers", [True, False])
def test_a_scene_behind_a_url_is_asked_for_its_state_again(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """A server that does not answer any more has not replaced the scene."""
    make_run(tmp_path / "run")
    (tmp_path / "web").mkdir()
    scene = write(tmp_path / "web/city.tif", random_scene(90, 70))
    map_scene = predict.map_scene

    def replaced(*words: Any) -> dict[str, Any]:  # noqa: ANN401
        counts = map_scene(*words)
        if answers:
            write(scene, random_scene(70, 90))
        else:
            scene.unlink()
        return counts

    monkeypatch.setattr(predict, "map_scene", replaced)
    with serving(tmp_path / "web") as web:
        command = (*BASE, f"stage.predict.scene={web.address}/city.tif")
        if answers:
            with pytest.raises(
                UserError, match=r"^what it reads outside the run changed while stage=predict"
            ):
                run_here(*command)
            assert not (tmp_path / "run/predict/city").exists()
            monkeypatch.setattr(predict, "map_scene", map_scene)
        run_here(*command)
    shape = classes_of(tmp_path / "run/predict/city/city.tif").shape
    assert shape == ((70, 90) if answers else (90, 70))
    assert not [*tmp_path.rglob(f"*{PARTIAL}")]
