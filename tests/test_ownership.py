"""The engine deletes only what it made itself: whatever else stands in its way is refused, and stays."""

import os
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import ome
from ome.api import LOCK
from ome.cli.sweep import Sweep
from ome.errors import UserError
from ome.faults import disk_fault
from ome.files import noted, write_json, write_text
from ome.geo.flat import RECORD, FlatRasters
from ome.inference.card import SegmenterCard
from ome.inference.mapping import ROWS_FOLDER
from ome.pipeline import changes
from ome.pipeline import checksums as listing
from ome.pipeline.checksums import hashes_of
from ome.pipeline.engine import execute
from ome.pipeline.forecast import forecast_of
from ome.pipeline.locks import locked
from ome.pipeline.manifest import Manifest
from ome.pipeline.marks import MARK
from ome.pipeline.stage import Stage, Work
from ome.tagging.table import Table
from tests.conftest import compose_config, forked, tiny
from tests.test_custom import custom, write_photographs
from tests.test_damage import damage
from tests.test_maps import random_scene, write
from tests.test_predict import BASE, classes_of
from tests.test_stages import config, counting
from tests.trained_runs import make_run

Run = Callable[..., DictConfig]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the logs and locks that a refused command may leave."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "logs" not in path.parts and path.suffix != ".lock"
    }


def notes(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("of its user")


def file(path: Path) -> None:
    path.write_text("of its user")


def hidden(path: Path) -> None:
    (path / ".git").mkdir(parents=True)


def other_tool(path: Path) -> None:
    notes(path)
    (path / "manifest.json").write_text('{"name": "an app", "icons": []}')


def other_stage(path: Path) -> None:
    Manifest("labels", "a", {}, {}).write(path)


def other_remains(path: Path) -> None:
    notes(path)
    (path / MARK).write_text("0123456789abcdef\nlabels\n")


def link(path: Path) -> None:
    notes(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["made", "made.partial"])
@pytest.mark.parametrize("thing", [notes, file, hidden, other_tool, other_stage, other_remains, link])
def test_what_is_not_the_engines_is_refused_by_name_and_stays(
    tmp_path: Path, thing: Callable[[Path], None], name: str, force: bool
) -> None:
    thing(tmp_path / name)
    before, there = contents(tmp_path), sorted(tmp_path.rglob("*"))
    stage, ran = counting()
    refused = r"(made|made\.partial|elsewhere) (holds the result of stage=labels|was not written)"
    with pytest.raises(UserError, match=refused):
        execute(stage, config(tmp_path), force=force)
    assert not ran
    assert contents(tmp_path) == before
    assert set(there) <= set(tmp_path.rglob("*"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("how", ["empty", "half", "form", "key", "unreadable"])
def test_a_result_with_a_damaged_manifest_is_called_damaged(tmp_path: Path, how: str, force: bool) -> None:
    stage, ran = counting()
    execute(stage, config(tmp_path))
    manifest = tmp_path / "made/manifest.json"
    if how in {"empty", "half", "form"}:
        damage(manifest, how)
    else:
        manifest.write_bytes(manifest.read_bytes().replace(b"stage", b"stbge" if how == "key" else b"\xff"))
    before = contents(tmp_path)
    line = r"made/manifest\.json is damaged .*: if ome wrote .*made, delete it and run the stage again"
    for act in (partial(execute, force=force), partial(forecast_of, planned={})):
        with pytest.raises(UserError, match=line):
            act(stage, config(tmp_path))
    assert contents(tmp_path) == before
    assert len(ran) == 1


@pytest.mark.parametrize("empty", ["made", "made.partial"])
def test_an_empty_folder_is_nobodys(tmp_path: Path, empty: str) -> None:
    (tmp_path / empty).mkdir()
    stage, _ = counting()
    assert execute(stage, config(tmp_path))
    assert (tmp_path / "made/artefact").exists()
    assert not (tmp_path / "made.partial").exists()


def test_results_and_remains_of_earlier_versions_are_the_engines(tmp_path: Path) -> None:
    """Their marks name a fingerprint alone, their manifests may have no list."""
    Manifest("made", "old", {}, {}).write(tmp_path / "made")
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / MARK).write_text("0123456789abcdef")
    (tmp_path / "made.partial/half").write_text("half")
    stage, _ = counting()
    assert execute(stage, config(tmp_path))
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"artefact", "files.csv", "manifest.json"}


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".htaccess",
        ".diary.2024.txt",
        "mine/manifest.json",
        "mine/files.csv",
        "other.qml",
        "mine/artefact.qml",
    ],
)
def test_a_file_that_a_person_put_beside_the_results_is_not_lost(tmp_path: Path, name: str) -> None:
    stage, ran = counting()
    execute(stage, config(tmp_path, lr=1))
    for viewer in ("artefact.aux.xml", "artefact.ovr", ".DS_Store"):
        (tmp_path / "made" / viewer).write_text("statistics")
    assert execute(stage, config(tmp_path, lr=2))
    (tmp_path / "made" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "made" / name).write_text("mine")
    assert not execute(stage, config(tmp_path, lr=2))
    line = f"made holds files that ome did not write, the first is {name}"
    with pytest.raises(UserError, match=re.escape(line)):
        forecast_of(stage, config(tmp_path, lr=3), {})
    with pytest.raises(UserError, match=re.escape(line)):
        execute(stage, config(tmp_path, lr=3))
    assert len(ran) == 2
    assert (tmp_path / "made" / name).read_text() == "mine"


@pytest.mark.parametrize(("rate", "force"), [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("edited", ["by hand", "WHOLE"], ids=["longer", "as long"])
def test_a_result_that_a_person_edited_is_kept(
    tmp_path: Path, rate: int, force: bool, edited: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, _ = counting()
    execute(stage, config(tmp_path))
    for name in ("artefact", "artefact.2"):
        (tmp_path / "made/artefact").write_text(edited)
        assert execute(stage, config(tmp_path, lr=rate), force=force)
        assert (tmp_path / "made/artefact").read_text() == "whole"
        assert (tmp_path / "made.changed" / name).read_text() == edited
        assert "has changed since ome wrote it: moved to" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_polygons_edited_in_a_gis_are_kept(tmp_path: Path, mode: str, closed: bool) -> None:
    def run(work: Work) -> dict[str, Any]:
        with closing(sqlite3.connect(work.folder / "city.gpkg")) as written:
            written.executescript("create table roofs (name); insert into roofs values ('grey')")
        noted(work.folder / "city.gpkg")
        return {}

    stage, path = Stage("made", run), tmp_path / "made/city.gpkg"
    execute(stage, config(tmp_path))
    size = path.stat().st_size
    with closing(sqlite3.connect(path)) as gis:
        gis.execute(f"pragma journal_mode = {mode}")
        gis.executescript("select * from roofs; update roofs set name = 'tree'")
        if closed:
            gis.close()
        assert (path.stat().st_size, path.with_name("city.gpkg-wal").exists()) == (
            size,
            mode == "wal" and not closed,
        )
        assert not execute(stage, config(tmp_path)), "which a viewer changes, too, is not out of date"
        execute(stage, config(tmp_path, lr=2))
    for one, name in ((tmp_path / "made.changed/city.gpkg", "tree"), (path, "grey")):
        with closing(sqlite3.connect(one)) as read:
            assert read.execute("select name from roofs").fetchall() == [(name,)]


@pytest.mark.parametrize("name", ["notes.txt", "deep/map.tif", ".htaccess", ".diary.2024.txt", "link"])
@pytest.mark.parametrize("by", ["resuming", "other settings", "force", "damage"])
def test_a_file_that_a_person_put_into_a_partial_folder_is_moved_aside(
    tmp_path: Path, name: str, by: str
) -> None:
    broken = [True]

    def run(work: Work) -> dict[str, Any]:
        if not (work.folder / "first").exists():
            write_text(work.folder / "first", "first")
            noted(work.folder / "rows")  # by other means
            (work.folder / "rows").mkdir()
            (work.folder / "rows/data").write_text("rows")
        resumed.append((work.folder / "first").stat().st_mtime_ns)
        if broken[0]:
            raise UserError("interrupted")
        write_text(work.folder / "second", "second")
        return {}

    resumed: list[int] = []
    stage = Stage("made", run)
    if by == "damage":
        broken[0] = False
        execute(stage, config(tmp_path, lr=2))
        (tmp_path / "made/second").unlink()
        broken[0] = True
    with pytest.raises(UserError, match="interrupted"):
        execute(stage, config(tmp_path, lr=1))
    put = tmp_path / "made.partial" / name
    put.parent.mkdir(exist_ok=True)
    if name == "link":
        put.symlink_to(tmp_path)
    else:
        put.write_text("mine")
    broken[0] = False
    execute(stage, config(tmp_path, lr=2 if by in {"other settings", "damage"} else 1), force=by == "force")
    aside = tmp_path / "made.changed" / name
    assert aside.is_symlink() if name == "link" else aside.read_text() == "mine"
    assert (resumed[0] == resumed[-1]) == (by in {"resuming", "damage"})
    assert not (tmp_path / "made.partial").exists()
    listed = (tmp_path / "made/files.csv").read_text()
    assert all(one in listed for one in ("first", "second", "rows/data"))
    assert name not in listed
    assert [path.name for path in (tmp_path / "made.changed").iterdir()] == [name.partition("/")[0]]


@pytest.mark.parametrize("name", ["notes.txt", "deep/map.tif", "masks/mine.png"])
@pytest.mark.parametrize("ours", [True, False])
def test_a_file_that_a_person_puts_into_a_partial_folder_while_its_stage_runs_is_no_result(
    tmp_path: Path, name: str, ours: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stage of a plug-in may write by other means than `ome.files`."""

    def run(work: Work) -> dict[str, Any]:
        write_text(work.folder / "masks/first", "first")
        (work.folder / name).parent.mkdir(exist_ok=True)
        (work.folder / name).write_text("mine")
        return {}

    monkeypatch.setattr(run, "__module__", "ome.stages.made" if ours else "plugin")
    execute(Stage("made", run), config(tmp_path))
    listed = (tmp_path / "made/files.csv").read_text()
    assert ("masks/first" in listed, name in listed) == (True, not ours)
    path = tmp_path / ("made.changed" if ours else "made") / name
    assert path.read_text() == "mine"
    assert ("was not written by ome" in capsys.readouterr().out) == ours


@pytest.mark.parametrize("link", ["made", "made.partial"])
def test_a_folder_of_the_engine_may_be_a_link(tmp_path: Path, link: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / link).symlink_to(disk)
    stage, _ = counting()
    for rate in (1, 2):
        assert execute(stage, config(tmp_path, lr=rate))
        assert not execute(stage, config(tmp_path, lr=rate))
    assert (tmp_path / "made/artefact").read_text() == "whole"
    assert (tmp_path / "made").is_symlink() == (link == "made")


@pytest.mark.parametrize("name", ["../notes.txt", "{above}/notes.txt", "part/../../notes.txt"])
def test_a_list_of_files_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    stage, _ = counting()
    execute(stage, config(tmp_path))
    victim = tmp_path / "notes.txt"
    victim.write_text("mine")
    listed = tmp_path / "made" / listing.NAME
    listed.write_text(listed.read_text().replace("artefact,5", f"{name.format(above=tmp_path)},9"))
    assert execute(stage, config(tmp_path))
    assert victim.read_text() == "mine"


def test_a_lock_empties_no_file(tmp_path: Path) -> None:
    (tmp_path / ".made.lock").write_text("of its user")
    with locked(tmp_path / ".made.lock", "it", wait=False):
        pass
    assert (tmp_path / ".made.lock").read_text() == "of its user"


@pytest.mark.parametrize("name", ["/", "made.partial", "Made.PARTIAL"])
def test_some_names_are_no_artefacts(tmp_path: Path, name: str) -> None:
    stage, ran = counting()
    settings = config(tmp_path)
    settings.scenes = str(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot be the folder of prepare|was not written by ome"):
        execute(replace(stage, name="prepare"), settings)
    assert not ran


# On the command line


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ("images", "scenes=images and the raw folder images overlap"),
        ("images/scenes", "overlap"),
        (".", "overlap"),
        ("images/..", "overlap"),
        ("linked", "overlap"),
        (
            "runs/x/labels",
            "runs/x/labels holds the result of stage=labels, and that of stage=prepare of",
        ),
        (
            "mine",
            "mine was not written by ome and is not empty, and that of stage=prepare of",
        ),
        ("tags.csv", r"tags\.csv was not written by ome"),
    ],
)
def test_scenes_replace_nothing_of_the_users(
    run_here: Run, tmp_path: Path, scenes: str, message: str
) -> None:
    write_photographs(tmp_path)
    notes(tmp_path / "mine")
    other_stage(tmp_path / "runs/x/labels")
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=message):
        run_here(*custom("prepare"), f"scenes={scenes}")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("stage", ["labels", "report"])
def test_a_run_among_the_users_folders_is_refused_before_the_first_stage(
    run_here: Run, tmp_path: Path, stage: str
) -> None:
    notes(tmp_path / stage)
    with pytest.raises(UserError, match=f"{stage} was not written by ome and is not empty"):
        run_here(*tiny(), "run_dir=.", f"stage.until={stage}")
    assert (tmp_path / stage / "notes.txt").read_text() == "of its user"
    assert not (tmp_path / "scenes").exists()


def test_a_town_is_not_built_over_real_archives(run_here: Run, tmp_path: Path) -> None:
    run_here(*tiny("prepare"))
    (archive,) = (tmp_path / "raw").glob("*RGB.zip")
    run_here(*tiny("prepare"), "force=true")  # over a town it is
    with zipfile.ZipFile(archive, "w") as real:
        real.writestr(zipfile.ZipInfo("top_potsdam_2_10_RGB.tif", (2014, 5, 1, 0, 0, 0)), b"weeks of flight")
    before = contents(tmp_path / "raw")
    with pytest.raises(UserError, match=r"RGB\.zip is not an archive of the town"):
        run_here(*tiny("prepare"), "force=true")
    assert contents(tmp_path / "raw") == before


@pytest.mark.parametrize("scene", ["b\udcff.tif", "b\udcff/city.tif"])
def test_a_scene_outside_utf8_leaves_no_folder(run_here: Run, tmp_path: Path, scene: str) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / scene).parent.mkdir(exist_ok=True)
    write(tmp_path / "city.tif", random_scene(40, 40)).rename(tmp_path / scene)
    with pytest.raises((UserError, UnicodeEncodeError)) as raised:
        run_here(*BASE, "dataset=synthetic", f"run_dir={run}", f"stage.predict.scene='{scene}'")
    assert "b'" in (disk_fault(raised.value) or "")
    assert not [path for path in (run / "predict").rglob("*") if path.suffix != ".lock"]


def test_a_partial_folder_that_is_a_link_to_nothing_is_named(run_here: Run, tmp_path: Path) -> None:
    write_photographs(tmp_path)
    (tmp_path / "mine.partial").symlink_to("nowhere")
    for force in ("false", "true"):
        with pytest.raises(UserError, match=r"mine.partial is a link to a file that does not exist: restore"):
            run_here(*custom("prepare"), "scenes=mine", f"force={force}")
    assert (tmp_path / "mine.partial").is_symlink()


def flipped(path: Path) -> None:
    """Changes a file, but neither its size nor its time."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("gone", [False, True])
def test_two_datasets_of_one_name_are_told_apart(run_here: Run, tmp_path: Path, gone: bool) -> None:
    """Of files of the same names, sizes and times, also where the folder of the first is gone."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write_photographs(tmp_path / name)
        for image in (tmp_path / name / "images").iterdir():
            os.utime(image, (0, 0))
    flipped(tmp_path / "there/images/photo 1.jpg")
    here, there = (
        custom("labels", f"dataset.raw={name}/images", f"dataset.tags={name}/tags.csv")
        for name in ("here", "there")
    )
    run_here(*here, "stage=prepare")
    run_here(*here)
    before = contents(tmp_path / "scenes")
    if gone:
        (tmp_path / "here/images").rename(tmp_path / "here/moved")
    lines = {"labels": r"holds the scenes of other files, once in .*here/images, not of .*there/images"}
    for stage in ("labels",) if gone else ("prepare", "labels", "cam"):
        line = (
            lines[stage]
            if gone
            else r"the scenes of .*here/images; 1 of 5 files in .*there/images have another"
        )
        with pytest.raises(UserError, match=line):
            run_here(*there, f"stage={stage}")
    assert contents(tmp_path / "scenes") == before
    run_here(*there, "stage=prepare", "dataset.name=other")
    if not gone:
        (tmp_path / "here/images").rename(tmp_path / "here/moved")
    run_here(*custom("labels", "dataset.raw=here/moved", "dataset.tags=here/tags.csv"))
    for image in (tmp_path / "here/moved").iterdir():  # to save space
        image.unlink()
    run_here(*custom("labels", "dataset.raw=here/moved", "dataset.tags=here/tags.csv"))


@pytest.mark.parametrize("copy", [shutil.copy, shutil.copy2])
@pytest.mark.parametrize("kind", ["custom", "potsdam"])
def test_a_copied_project_is_used_beside_the_original(
    run_here: Run,
    tmp_path: Path,
    kind: str,
    copy: Callable[[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    if kind == "custom":
        write_photographs(old)
        typed = custom("labels")
    else:
        monkeypatch.chdir(old)
        run_here(*tiny("prepare"), "scenes=town")
        typed = [word.replace("dataset=synthetic", "dataset=potsdam") for word in tiny("labels")]
        typed = [word for word in typed if "town" not in word]
    monkeypatch.chdir(old)
    run_here(*typed, "stage=all", "stage.until=labels")
    shutil.copytree(old, new, copy_function=copy)
    monkeypatch.chdir(new)
    before = contents(new)
    read: list[Path] = []
    monkeypatch.setattr(changes, "hashes_of", lambda files: [*map(read.append, files)] and hashes_of(files))
    for stage in (["labels"], ["prepare"], ["all", "stage.until=labels"]):
        capsys.readouterr()
        run_here(*typed, f"stage={stage[0]}", *stage[1:])
        assert "up to date" in capsys.readouterr().out
        assert contents(new).items() >= before.items()
    assert len(read) == len(set(read)) > 1  # each file once, by the plan or the run
    flipped(edited := next(path for path in (new / "images" if kind == "custom" else new / "raw").iterdir()))
    line = rf"holds the scenes of .*old/.*; 1 of \d+ files .* have another content, such as {edited.name}: if"
    for last in ("labels", "prepare", "all"):
        with pytest.raises(UserError, match=line):
            run_here(*typed, f"stage={last}", *(["stage.until=labels"] if last == "all" else []))
    if kind == "custom":
        shutil.rmtree(new / "scenes")  # as the line says
        run_here(*typed, "stage=all", "stage.until=labels")


def test_images_replaced_under_a_table_are_said(
    run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`stage=labels` alone reads the scenes of the images before."""
    write_photographs(tmp_path)
    run_here(*custom("all"), "stage.until=labels")
    image = tmp_path / "images/photo 1.jpg"
    os.utime(image, (0, 0))
    capsys.readouterr()
    run_here(*custom("labels"))
    assert "has changed since" not in capsys.readouterr().out
    Image.new("RGB", (60, 60)).save(image)
    run_here(*custom("labels"))
    assert "images has changed since scenes/custom_all_full was prepared" in capsys.readouterr().out
    for photograph in (tmp_path / "images").glob("*.jpg"):  # to save space: stage=prepare would fail
        photograph.unlink()
    run_here(*custom("labels"))
    assert "has changed since" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("file", []), ("file", ["stage.predict.confidence=true"]), ("folder", []), ("archive", [])],
)
@pytest.mark.parametrize("how", ["moved", "copied", "copied with times"])
@pytest.mark.parametrize("same", [True, False])
def test_a_project_that_was_moved_with_its_scenes_knows_its_maps(
    run_here: Run,
    tmp_path: Path,
    same: bool,
    how: str,
    kind: str,
    settings: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another scene of the same name, size and time is another one."""
    old, new = tmp_path / "old", tmp_path / "new"
    make_run(old / "run")
    (old / "city").mkdir()
    scene = write(old / "city/city.tif", random_scene(40, 40))
    with zipfile.ZipFile(old / "city.zip", "w") as archive:
        archive.write(scene, "city.tif")
    typed = {"file": "{}/city/city.tif", "folder": "{}/city", "archive": "/vsizip/{}/city.zip/city.tif"}[kind]

    def predict(project: Path, *more: str) -> None:
        scene = f"stage.predict.scene={typed.format(project)}"
        run_here(*BASE, "dataset=synthetic", f"run_dir={project / 'run'}", scene, *more)

    predict(old)
    if how == "moved":
        old.rename(new)
    else:
        shutil.copytree(old, new, copy_function=shutil.copy if how == "copied" else shutil.copy2)
    if not same:
        for path in (new / "city/city.tif", new / "city.zip"):
            state, content = path.stat(), bytearray(path.read_bytes())
            content[1000] ^= 1
            path.write_bytes(content)
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    before = contents(new / "run/predict")
    capsys.readouterr()
    if same:
        predict(new, *settings)
        assert ("up to date predict" in capsys.readouterr().out) == (not settings)
        predict(new)
    else:
        with pytest.raises(UserError, match=r"holds the result of stage=predict of .*old/city"):
            predict(new, *settings)
    assert before.items() <= contents(new / "run/predict").items() or (same and settings)


@pytest.mark.parametrize("typed", [".", "..", "up/..", "city.partial.tif", ".city.tif", "city"])
def test_every_scene_has_a_folder_of_its_own(
    run_here: Run, tmp_path: Path, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run")
    for name in ("city.tif", "city.partial.tif", ".city.tif", "city/a.tif", "up/a.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, random_scene(40, 40))
    words = ["dataset=synthetic", f"run_dir={tmp_path / 'run'}"]
    if typed == "..":
        monkeypatch.chdir(tmp_path / "up")
    scenes = [f"stage.predict.scene={path}" for path in (typed, tmp_path / "city.tif")]
    run_here(*BASE, *words, scenes[0])
    before = contents(tmp_path / "run/predict")
    if typed == "city":
        with pytest.raises(
            UserError,
            match=r"stage=predict of .*city, and that of stage=predict of .*city\.tif w",
        ):
            run_here(*BASE, *words, scenes[1], "force=true")
    else:
        run_here(*BASE, *words, scenes[1])
        run_here(*BASE, *words, scenes[0])
    after = contents(tmp_path / "run/predict")
    assert before.items() <= after.items()
    maps = [path for path in (tmp_path / "run").rglob("manifest.json") if path.parent.name != "seg"]
    assert {path.parents[1] for path in maps} == {tmp_path / "run/predict"}
    assert len(maps) == 1 + (typed != "city")


def test_a_map_from_python_replaces_no_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    scene = write(tmp_path / "city.tif", random_scene(64, 64))
    settings: dict[str, Any] = {"flip": False, "device": "cpu", "precision": "32-true"}
    for folder, name in ((tmp_path, "city.tif"), (tmp_path / "out", "city.gpkg"), (tmp_path / "raw", "rows")):
        folder.mkdir(exist_ok=True)
        if not (folder / name).exists():
            notes(folder / name)
        before = contents(folder)
        with pytest.raises(UserError, match=rf"{name} exists and is not a map of"):
            ome.map_scene(scene, run, folder, **settings)
        assert contents(folder) == before
    for number, text in enumerate(('{"mine": 1}', "[]", "no JSON")):
        foreign = tmp_path / f"foreign{number}"
        foreign.mkdir()
        (foreign / ".city.json").write_text(text)
        with pytest.raises(UserError, match=r"\.city\.json exists and is not a map of"):
            ome.map_scene(scene, run, foreign, **settings)
        assert (foreign / ".city.json").read_text() == text
    with pytest.raises(UserError, match=r"city\.tif is not a folder: give an existing"):
        ome.map_scene(scene, run, scene, **settings)
    for _ in range(2):
        ome.map_scene(scene, run, tmp_path / "here", **settings)
    (tmp_path / "b").mkdir()
    other = write(tmp_path / "b/city.tif", random_scene(30, 30))
    with pytest.raises(UserError, match="exists and is not a map of"):
        ome.map_scene(other, run, tmp_path / "here", **settings)
    assert classes_of(tmp_path / "here/city.tif").shape == (64, 64)
    # A scene whose map has the name of another one's confidence.
    namesake = write(tmp_path / "city_confidence.tif", random_scene(30, 30))
    ome.map_scene(namesake, run, tmp_path / "here", **settings)
    before = contents(tmp_path / "here")
    with pytest.raises(UserError, match=r"city_confidence\.tif exists and is not a map of .*city\.tif"):
        ome.map_scene(scene, run, tmp_path / "here", confidence=True, **settings)
    assert contents(tmp_path / "here") == before


@pytest.mark.parametrize("same", [True, False])
def test_a_map_from_python_that_was_moved_with_its_scene_is_replaced(tmp_path: Path, same: bool) -> None:
    run, old, new = make_run(tmp_path / "run"), tmp_path / "old", tmp_path / "new"
    settings: dict[str, Any] = {"flip": False, "device": "cpu", "precision": "32-true"}
    old.mkdir()
    ome.map_scene(write(old / "city.tif", random_scene(64, 64)), run, old / "map", **settings)
    old.rename(new)
    if not same:
        write(new / "city.tif", random_scene(64, 64))
    with nullcontext() if same else pytest.raises(UserError, match="exists and is not a map of"):
        ome.map_scene(new / "city.tif", run, new / "map", **settings)


def test_rasters_in_the_making_remove_their_own_files(tmp_path: Path) -> None:
    with FlatRasters(tmp_path / "rows", {"classes": 1}, 4, 4) as flat:
        flat.write(0, {"classes": np.ones((1, 4, 4), np.uint8)})
        (tmp_path / "rows/notes.txt").write_text("mine")
        with pytest.raises(OSError, match="not empty"):
            flat.discard()
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["notes.txt"]


def test_a_table_of_tags_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "shared.csv").write_text("image,split,road\na.png,train,1\n")
    (tmp_path / "tags.csv").symlink_to(tmp_path / "shared.csv")
    table = Table.read(tmp_path / "tags.csv", windows=False)
    table.write([*table.names, "tree"], table.rows)
    assert (tmp_path / "tags.csv").is_symlink()
    assert (tmp_path / "shared.csv").read_text().startswith("image,split,road,tree")


def test_a_kill_before_the_mark_was_named_leaves_nothing_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / f".{MARK}.123").write_text("012")
    stage, _ = counting()
    assert execute(stage, config(tmp_path))
    assert not (tmp_path / "made.partial").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file(tmp_path / "file")
    settings = config(tmp_path)
    settings.run_dir = str(tmp_path / "file/run")
    with pytest.raises(UserError, match=r"cannot write .*\.made\.lock \(.*\): choose another place"):
        execute(counting()[0], settings)


def test_a_sweep_without_scores_removes_nothing(tmp_path: Path) -> None:
    notes(tmp_path / "sweep/compare.partial")
    (tmp_path / "sweep/0_a").mkdir()
    settings = compose_config(["stage=labels"])
    OmegaConf.set_struct(settings, False)
    settings.hydra = {
        "sweep": {"dir": str(tmp_path / "sweep")},
        "sweeper": {"params": None},
        "overrides": {"task": ["seed=0,1"]},
    }
    Sweep().on_multirun_end(settings)
    assert (tmp_path / "sweep/compare.partial/notes.txt").exists()


def test_a_new_map_from_python_leaves_no_file_of_the_old_one(tmp_path: Path) -> None:
    scene = write(tmp_path / "city.tif", random_scene(64, 64))
    settings: dict[str, Any] = {"flip": False, "device": "cpu", "precision": "32-true"}
    runs = [make_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    out = tmp_path / "out"
    ome.map_scene(scene, runs[0], out, confidence=True, probabilities=True, **settings)
    ome.map_scene(scene, runs[1], out, **settings)
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == [
        *("city.qml", "city.tif", "city.tif.aux.xml", "city_areas.csv")
    ]
    # A file of its name that no call has written is somebody's.
    notes(out / "city.gpkg")
    ome.map_scene(scene, runs[0], out, **settings)
    with pytest.raises(UserError, match=r"city\.gpkg exists and is not a map of"):
        ome.map_scene(scene, runs[0], out, polygons=True, **settings)


def test_rows_of_an_interrupted_map_are_of_the_same_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, run = write(tmp_path / "city.tif", random_scene(64, 64)), make_run(tmp_path / "run")
    record, records_exist = tmp_path / "maps" / ROWS_FOLDER / RECORD, list[bool]()

    def interrupted(*_: object) -> None:
        records_exist.append(record.exists())
        write_json(record, 1)

    monkeypatch.setattr("ome.api.write_maps", interrupted)
    for temperature in (None, None, 2.0):
        if temperature is not None:
            replace(SegmenterCard.read(run / "seg/weak"), temperature=temperature).write(run / "seg/weak")
        ome.map_scene(scene, run, tmp_path / "maps", flip=False, device="cpu", precision="32-true")
    assert records_exist == [False, True, False]


def test_a_folder_of_maps_is_written_by_one_call_at_a_time(tmp_path: Path) -> None:
    scene = write(tmp_path / "city.tif", random_scene(64, 64))
    run = make_run(tmp_path / "run")
    busy = pytest.raises(UserError, match=r"working on .*out: wait for it, or give this map")
    with locked(tmp_path / "out" / LOCK, "out", wait=False), busy:
        ome.map_scene(scene, run, tmp_path / "out", device="cpu")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.output_subdir=mine"], "hydra.output_subdir=mine: the settings of a command are in config"),
        (["hydra.output_subdir={mine}"], "hydra.output_subdir=/"),
        (["hydra.output_subdir=null", "hydra.run.dir=mine"], "mine/run.log would be overwritten"),
        (["hydra.run.dir="], "hydra.run.dir= is empty: omit it, and choose the folder of the run by run"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: relative paths start where"),
        (["hydra.job.name=../mine/run"], "hydra.job_logging would write into"),
        (["hydra.job_logging.handlers.file.filename=mine/run.log"], "would write into mine/run.log: omit it"),
        (["+hydra.hydra_logging.handlers.file.filename=mine/run.log"], "write into a file before it"),
        (["-m", "seed=1,2", "hydra.sweep.dir=mine"], "mine/multirun.yaml would be overwritten, and ome has"),
        (["-m", "seed=1,2", "hydra.sweep.subdir={mine}"], "does not name each job differently: omit it"),
        (
            ["-m", "seed=1,2", "hydra.sweep.subdir=same"],
            "hydra.sweep.subdir=same does not name each job differently",
        ),
        (["hydra.callbacks=null"], "hydra.callbacks=null: ome checks and compares jobs by hydra.callbacks"),
        (["~hydra.callbacks.sweep"], "settings of Hydra are set one by one: type hydra.NAME=VALUE"),
    ],
)
def test_hydra_writes_into_no_files_of_others(tmp_path: Path, words: list[str], message: str) -> None:
    """Neither its settings nor a log; nothing is removed after a command that is refused."""
    (mine := tmp_path / "mine").mkdir()
    names = ["config.yaml", "hydra.yaml", "overrides.yaml", "resolved.yaml", "multirun.yaml", "run.log"]
    for name in (*names, "a.log"):
        (mine / name).write_text("mine" if name in names else "")
    words = [word.replace("{mine}", str(mine)) for word in words]
    status, printed = forked(tmp_path, "stage=prepare", *words)
    assert (status, len(printed.splitlines())) == (1, 1), printed
    assert message in printed
    assert {path.name: path.read_text() for path in mine.iterdir()} == dict.fromkeys(names, "mine") | {
        "a.log": ""
    }
