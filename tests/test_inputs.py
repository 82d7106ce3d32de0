"""What a stage reads is what it was made for: changed, damaged or exchanged inputs are named."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from omegaconf import DictConfig
from PIL import Image

from ome.cli.launch import launch
from ome.data.cams import write_cams
from ome.errors import UserError
from ome.files import read_csv, save_atomically, write_csv, write_json, write_text
from ome.geo.flat import FlatRasters
from ome.geo.raster import write_grey_png
from ome.pipeline.checksums import NAME as LISTING
from ome.pipeline.engine import execute
from ome.pipeline.manifest import NAME as MANIFEST
from ome.pipeline.manifest import Manifest
from ome.pipeline.marks import MARK
from ome.pipeline.registry import find_stage
from ome.pipeline.stage import Stage, Work
from tests.conftest import compose_config, copy_until, forked, tiny
from tests.test_custom import write_photographs
from tests.test_stages import config, counting

Run = Callable[..., DictConfig]
RUN = Path("runs/synthetic_tu-test_resnet")
QUICK = ["stage.cam.epochs=1", "stage.cam.validation_tiles=0", "dataset.split.train=['2_10']"]
LABELS = ["stage=all", "stage.until=labels", "dataset=custom", "dataset.raw=images", "dataset.tags=tags.csv"]
WALKED = ["stage.pseudo.cams=affinity", "stage.affinity.radius=2"]


# What was made from other things than the rest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has come to its segmenter."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        launch(compose_config([*tiny(), *QUICK, *WALKED, "stage.seg.targets=[weak]", "stage.until=seg"]))
    return folder


@pytest.fixture
def trained(run_here: Run, whole: Path, tmp_path: Path) -> Run:
    """A run that has come to its CAMs, to run further stages in."""
    copy_until("cam", whole, tmp_path)
    return run_here


def test_cams_of_other_scenes_of_the_same_name_are_not_read(trained: Run) -> None:
    trained(*tiny("prepare"), *QUICK, "dataset.town.seed=1")
    with pytest.raises(
        UserError, match=r"/labels was made from another prepare than scenes/.* is now: run stage=labels"
    ):
        trained(*tiny("pseudo"), *QUICK, "dataset.town.seed=1")
    trained(*tiny("labels"), *QUICK, "dataset.town.seed=1")
    with pytest.raises(
        UserError, match=r"/cam was made from another prepare than scenes/.* is now: run stage=cam"
    ):
        trained(*tiny("pseudo"), *QUICK, "dataset.town.seed=1")
    assert not (RUN / "pseudo").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("dataset.split.test=['2_11']", "scenes/synthetic_rgb_full was made with dataset.split.test"),
        ("dataset.filter.minimum=0.5", "/labels was made with dataset.filter.minimum=0.02, not 0.5"),
        ("dataset.tile.stride=32", "/labels was made with dataset.tile.stride=64, not 32"),
        ("stage.pseudo.threads=2", ""),
        ("trainer.workers=1", ""),
    ],
)
def test_a_setting_of_an_earlier_stage_that_does_not_count_is_said(
    trained: Run, capsys: pytest.CaptureFixture[str], typed: str, message: str
) -> None:
    trained(*tiny("cam"), *QUICK, typed)
    printed = " ".join(capsys.readouterr().out.split())
    assert message in printed
    assert ("for the setting to count" in printed) == bool(message)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("prediction.tta=d4", ""),
        ("prediction.stride=1.0", ""),
        ("crf.iterations=3", ""),
        (
            "segmenter.recipe.batch=3",
            "/seg was made with segmenter.recipe.batch=2, not 3: stage=predict",
        ),
    ],
)
def test_a_setting_of_a_map_counts_for_the_map(
    whole: Path, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    copy_until("seg", whole, tmp_path)
    scene = next((tmp_path / "scenes").rglob("*.tif"))
    run_here(*tiny("predict"), *QUICK, *WALKED, f"stage.predict.scene={scene}", typed)
    printed = " ".join(capsys.readouterr().out.split())
    assert said in printed
    assert ("for the setting to count" in printed) == bool(said)


def test_an_optional_input_made_from_other_things_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Manifest("labels", "new", {}, {}).write(tmp_path / "labels")
    Manifest("cam", "cam", {}, {"labels": "old"}).write(tmp_path / "cam")
    Manifest("seg", "seg", {}, {"cam": "cam"}).write(tmp_path / "seg")
    inputs: list[set[str]] = []

    def run(work: Work) -> dict[str, Any]:
        inputs.append(set(work.inputs))
        return {}

    execute(Stage("made", run, requires=("labels",), optional_inputs=("cam", "seg")), config(tmp_path))
    assert inputs == [{"labels"}]
    assert capsys.readouterr().out.count("left out") == 2


def _flip(path: Path) -> None:
    """One bit in the middle; size and time stay."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("name", ["cam/network.pt", "cam/cams/2_10/*.npz", "labels/tags.csv", "scenes"])
def test_verify_reads_every_byte_of_what_a_stage_reads(trained: Run, name: str) -> None:
    path = Path("scenes/synthetic_rgb_full/images/2_10.tif")
    if name != "scenes":
        path = min(RUN.glob(name))
    _flip(path)
    with pytest.raises(
        UserError, match=rf"{path} has changed since stage=\w+ wrote it: type stage=\w+ verify=true"
    ):
        trained(*tiny("pseudo"), *QUICK, "verify=true")
    assert not (RUN / "pseudo").exists()


@pytest.mark.parametrize("path", [RUN / "labels/tags.csv", Path("scenes/synthetic_rgb_full/index.json")])
def test_what_the_plan_reads_can_be_redone(trained: Run, whole: Path, path: Path) -> None:
    """The plan before a run must not fail at the damage that the run is about to mend."""
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    trained(*tiny(), *QUICK, *WALKED, "stage.until=labels", "verify=true")
    assert path.read_bytes() == (whole / path).read_bytes()


def test_verify_reads_every_byte_of_files_outside_the_run(
    run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.fromarray(np.full((40, 44, 3), 90, np.uint8)).save(tmp_path / f"images/{name}.png")
    (tmp_path / "tags.csv").write_text("image,tags\na,field\nb,field;water\n")
    run_here(*LABELS)
    run_here(*LABELS, "verify=true")
    assert capsys.readouterr().out.count("up to date") == 2
    for path, content, name in [
        (Path("images/a.png"), None, "prepare"),
        (Path("tags.csv"), b"image,tags\na,water\nb,field;water\n", "labels"),
    ]:
        state, before = path.stat(), path.read_bytes()
        path.write_bytes(content or before[:-1] + b"?")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        run_here(*LABELS)
        assert capsys.readouterr().out.count("up to date") == 2
        with pytest.raises(
            UserError, match=rf"{path} has changed since stage={name} read it.*touch '{path}'"
        ):
            run_here(*LABELS, "verify=true")
        path.write_bytes(before)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        capsys.readouterr()
    Path("tags.csv").write_bytes(b"image,tags\na,water\nb,field;water\n")
    run_here(*LABELS, "verify=true")
    assert "done labels" in capsys.readouterr().out


def test_files_outside_the_run_that_were_copied_are_the_same_files(
    run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(tmp_path)
    run_here(*LABELS)
    copied = [*Path("images").iterdir(), Path("tags.csv")]
    for path in copied:
        os.utime(path, (9, 9))
    capsys.readouterr()
    run_here(*LABELS)
    assert capsys.readouterr().out.count("up to date") == 2
    table = Path("tags.csv")
    table.write_text(table.read_text().replace("photo 0.jpg,field", "photo 0.jpg,water"))
    run_here(*LABELS)
    assert "done labels" in capsys.readouterr().out


def test_a_run_among_the_raw_data_is_no_raw_data(
    run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(*tiny("prepare"), "scenes=town")
    typed = [word.replace("synthetic", "potsdam") for word in tiny("labels") if "town" not in word]
    (tmp_path / "raw/manifest.json").write_text('{"name": "of the data set"}')
    run_here(*typed, "run_dir=raw/run", "stage=prepare")
    for folder in ("raw/run/seg.partial/masks", "raw/run/logs/seg/media"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / folder / "a.png")
    (tmp_path / "raw/run/seg.partial" / MARK).write_text("0\nseg\n")
    run_here(*typed, "run_dir=raw/run")
    assert (tmp_path / "raw/run/labels/tags.png").exists()
    capsys.readouterr()
    run_here(*typed, "run_dir=raw/run", "stage=prepare")
    assert "up to date prepare" in capsys.readouterr().out
    Image.new("L", (8, 8)).save(tmp_path / "raw/a.png")
    run_here(*typed, "run_dir=raw/run", "stage=prepare")
    assert "changed: a.png" in capsys.readouterr().out


def test_cams_replaced_by_hand_are_named_without_being_asked(trained: Run) -> None:
    path = sorted((RUN / "cam/cams/2_10").iterdir())[3]
    write_cams(path, np.ones((6, 64, 64), np.float32), np.ones(6, np.uint8))
    with pytest.raises(UserError, match=rf"{path} has changed since stage=cam wrote it: type stage=cam"):
        trained(*tiny("pseudo"), *QUICK)


def test_another_order_of_the_classes_is_another_dataset(run_here: Run) -> None:
    """The order is the class index; as a mapping, both orders are equal."""
    composed = run_here(*tiny("prepare"))
    before = Manifest.read(Path(composed.scenes))
    classes = dict(composed.dataset.classes)
    turned = dict(reversed(classes.items()))
    assert classes == turned
    for order, same in ((classes, True), (turned, False)):
        composed.dataset.classes = DictConfig(order)
        composed.stage = {"name": "prepare", "broken": "fail"}
        execute(find_stage("prepare", composed), composed)
        after = Manifest.read(Path(composed.scenes))
        assert before is not None
        assert after is not None
        assert (after.fingerprint == before.fingerprint) == same


@pytest.mark.slow
def test_a_sweep_counts_jobs_whose_result_was_there_before(tmp_path: Path) -> None:
    overrides = [*tiny(), *QUICK, "dataset.split.test=[]", "stage.until=cam"]
    status, printed = forked(tmp_path, *overrides, "seed=0")
    assert status == 0, printed
    status, printed = forked(tmp_path, "-m", *overrides, "seed=0,1")
    assert status == 0, printed
    (sweep,) = (tmp_path / "runs/sweeps").iterdir()
    assert [(job / "cam").exists() for job in sorted(sweep.glob("[01]_*"))] == [False, True]
    (row,) = read_csv(sweep / "compare/comparison.csv")
    assert (row["scored"], row["runs"]) == ("CAM", "2")


# Power cuts


def test_files_are_on_the_disk_before_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def note(what: str, path: Path) -> None:
        done.append((what, Path(path).name))

    def syncing(descriptor: int) -> None:
        note("sync", Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def replacing(path: Path, target: Path) -> Path:
        note("name", path)
        return replace(path, target)

    def renaming(path: Path, target: Path) -> Path:
        note("name", path)
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(Path, "rename", renaming)

    def run(work: Work) -> dict[str, Any]:
        (work.folder / "a").mkdir()
        (work.folder / "a/plain").write_text("by a library")
        write_text(work.folder / "a/ours.txt", "ours")
        return {}

    execute(Stage("made", run), config(tmp_path))
    for number, (what, name) in enumerate(done):
        assert what == "sync" or ("sync", name) in done[:number], name
    before = done[: done.index(("name", "made.partial"))]
    assert {("sync", name) for name in ("plain", "ours.txt", "a", "made.partial")} <= set(before)
    assert done[-1] == ("sync", tmp_path.name)


def kinds() -> dict[str, Callable[[Path], object]]:
    """A writer of each kind of file that stages leave, by name."""

    def tif(path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 99, (1, 300, 300), dtype=np.uint8)
        size = {"count": 1, "height": 300, "width": 300, "dtype": "uint8"}
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(path, "w", driver="GTiff", **size) as written:
            written.write(values)

    network = {"weight": torch.ones(1000)}
    random = np.random.default_rng(0)
    return {
        "network.pt": lambda path: save_atomically(path, lambda temporary: torch.save(network, temporary)),
        "last.ckpt": lambda path: save_atomically(path, lambda temporary: torch.save(network, temporary)),
        "cams/scene/a.npz": lambda path: write_cams(
            path, random.random((2, 20, 20), np.float32), np.ones(2, np.uint8)
        ),
        "masks/scene/a.png": lambda path: write_grey_png(
            path, random.integers(0, 99, (20, 20), dtype=np.uint8)
        ),
        "predictions/scene.tif": tif,
        "history.csv": lambda path: write_csv(path, ["step", "value"], [(1, 2), (3, 4)]),
        "segmenter.json": lambda path: write_json(path, {"a": [1, 2, 3]}),
    }


@pytest.mark.parametrize("part", [0.0, 0.5])
@pytest.mark.parametrize("name", [*kinds(), MARK, MANIFEST, LISTING])
@pytest.mark.parametrize("manifest", [True, False])
def test_a_partial_stage_trusts_no_file_for_being_there(
    tmp_path: Path, name: str, part: float, manifest: bool
) -> None:
    """Cut while it was worked on, or with its manifest: the same command ends with the same files."""

    def run(work: Work) -> dict[str, Any]:
        for inside, write in kinds().items():
            if not (work.folder / inside).exists():
                write(work.folder / inside)
        return {}

    stage = Stage("made", run)
    execute(stage, config(tmp_path))
    folder, partial = tmp_path / "made", tmp_path / "made.partial"
    result = Manifest.read(folder)
    assert result is not None
    before = {path: path.stat().st_size for path in folder.rglob("*.*") if path.is_file()}
    folder.rename(partial)
    write_text(partial / MARK, f"{result.fingerprint}\nmade\n")
    if not manifest:
        (partial / MANIFEST).unlink()
        (partial / LISTING).unlink()
    victim = partial / name
    if victim.exists():
        os.truncate(victim, int(part * victim.stat().st_size))
    for _ in range(2):
        execute(stage, config(tmp_path))
        assert not partial.exists()
    after = {path: path.stat().st_size for path in folder.rglob("*.*") if path.is_file()}
    changing = {folder / MANIFEST}  # times
    assert {path: size for path, size in after.items() if path not in changing} == {
        path: size for path, size in before.items() if path not in changing
    }
    torch.load(folder / "network.pt", weights_only=True)
    Image.open(folder / "masks/scene/a.png").load()


def _die_at(number: int) -> None:
    """Ends this process at its n-th change of names on the disk."""
    left = [number]

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the function takes
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return change(*given, **named)

        return counted

    for name in ("unlink", "rmdir", "rename", "replace", "mkdir"):
        setattr(os, name, dying(getattr(os, name)))


@pytest.mark.parametrize("damage", [False, True])
def test_a_kill_between_any_two_changes_on_the_disk_is_recovered_from(tmp_path: Path, damage: bool) -> None:
    stage, _ = counting()
    for number in range(100):
        run = tmp_path / str(number)
        execute(stage, config(run, lr=1))
        (run / "made.partial/deep").mkdir(parents=True)
        (run / "made.partial" / MARK).write_text("of other work")
        (run / "made.partial/deep/half").write_text("half")
        rate = 1 if damage else 2
        if damage:
            (run / "made/artefact").write_text("half")
        if (child := os.fork()) == 0:
            try:
                _die_at(number)
                execute(stage, config(run, lr=rate))
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for _ in range(2):
            execute(stage, config(run, lr=rate))
            assert (run / "made/artefact").read_text() == "whole"
            aside = {"made.changed"} if damage else set()  # a person may have written that half
            assert {path.name for path in run.iterdir()} - {".made.lock", "logs"} == {"made"} | aside
        if damage:
            assert [path.read_text() for path in (run / "made.changed").iterdir()] == ["half"]
        if status == 0:
            break
    assert 10 < number < 99


@pytest.mark.parametrize("part", [0.0, 0.5])
@pytest.mark.parametrize("name", ["classes.raw", "rows.json"])
def test_rows_that_a_power_cut_took_are_predicted_again(tmp_path: Path, name: str, part: float) -> None:
    rows = np.arange(1, 1601, dtype=np.uint16).astype(np.uint8).reshape(1, 40, 40)
    with FlatRasters(tmp_path, {"classes": 1}, 40, 40) as flat:
        flat.write(0, {"classes": rows[:, :12]})
        assert flat.rows_done == 12
    path = tmp_path / name
    os.truncate(path, int(part * path.stat().st_size))
    with FlatRasters(tmp_path, {"classes": 1}, 40, 40) as flat:
        done = flat.rows_done
        np.testing.assert_array_equal(flat.read("classes", 0, done), rows[:, :done])


@pytest.mark.parametrize("starts", [(0,), (0, 20), (0, 8, 30)])
def test_rows_of_several_processes_are_resumed_by_any_number(tmp_path: Path, starts: tuple[int, ...]) -> None:
    rows = np.arange(1, 1601, dtype=np.uint16).astype(np.uint8).reshape(1, 40, 40)
    for start, stop, done in ((0, 10, 10), (10, 40, 25)):
        with FlatRasters(tmp_path, {"classes": 1}, 40, 40, range(start, stop)) as flat:
            flat.write(start, {"classes": rows[:, start:done]})
    for start, stop in zip(starts, (*starts[1:], 40), strict=True):
        with FlatRasters(tmp_path, {"classes": 1}, 40, 40, range(start, stop)) as flat:
            done = flat.rows_done
            assert done == (min(25, stop) if start < 25 else start)
            if done < stop:
                flat.write(done, {"classes": rows[:, done:stop]})
    with FlatRasters(tmp_path, {"classes": 1}, 40, 40) as flat:
        assert flat.rows_done == 40
        np.testing.assert_array_equal(flat.read("classes", 0, 40), rows)
        flat.discard()
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    ("stage", "name", "part"),
    [
        ("prepare", "images/2_10.tif", 0.5),
        pytest.param("prepare", "masks/2_10.tif", 0, marks=pytest.mark.slow),
        pytest.param("labels", "tags.csv", 0.5, marks=pytest.mark.slow),
        ("cam", "network.pt", 0),
        pytest.param("cam", "cams/2_10/*.npz", 0.5, marks=pytest.mark.slow),
        ("affinity", "labels/2_10/*.png", 0),
        pytest.param("affinity", "cams/2_10/*.npz", 0.5, marks=pytest.mark.slow),
        pytest.param("pseudo", "weights/2_10/*.png", 0, marks=pytest.mark.slow),
        ("pseudo", "masks/2_10/*.png", 0.5),
        ("seg", "weak/network.pt", 0),
        pytest.param("seg", "weak/segmenter.json", 0.5, marks=pytest.mark.slow),
        pytest.param("seg", "weak/predictions/2_13.tif", 0.5, marks=pytest.mark.slow),
    ],
)
def test_a_stage_resumes_from_files_that_were_cut(
    run_here: Run, whole: Path, tmp_path: Path, stage: str, name: str, part: float
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    folder = Path("scenes/synthetic_rgb_full") if stage == "prepare" else RUN / stage
    partial = folder.rename(folder.with_name(folder.name + ".partial"))
    manifest = Manifest.read(partial)
    assert manifest is not None
    for later in (MANIFEST, LISTING):
        (partial / later).unlink()
    write_text(partial / MARK, manifest.fingerprint)
    victim = min(partial.glob(name))
    os.truncate(victim, int(part * victim.stat().st_size))
    run_here(*tiny(stage), *QUICK, *WALKED, "stage.seg.targets=[weak]")
    again = Manifest.read(folder)
    assert again is not None
    assert (again.fingerprint, again.files) == (manifest.fingerprint, manifest.files)
    reference = whole / folder
    differing = [
        path
        for path in reference.rglob("*")
        if path.is_file()
        and path.name not in {MANIFEST, LISTING}
        and path.read_bytes() != (folder / path.relative_to(reference)).read_bytes()
    ]
    assert differing == []
