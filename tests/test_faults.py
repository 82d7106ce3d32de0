"""What goes wrong around a run: full disks, damaged and malicious files, two runs in one folder."""

import contextlib
import errno
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import rasterio
import torch
from omegaconf import DictConfig
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine
from torch import nn

from ome.data.archives import RawFiles
from ome.data.cams import read_cams
from ome.data.raw_source import RawSource
from ome.data.scene_index import SceneIndex
from ome.errors import UserError
from ome.faults import disk_fault
from ome.files import write_text
from ome.geo.cog import write_class_cog, write_probability_cog
from ome.geo.flat import FlatRasters
from ome.geo.grid import Grid
from ome.geo.polygons import Region
from ome.geo.raster import read_png
from ome.geo.reader import Raster
from ome.networks.checkpoint_file import read_checkpoint
from ome.pipeline import checksums as listing
from ome.pipeline.engine import execute
from ome.pipeline.locks import InUseError, locked
from ome.pipeline.manifest import Manifest
from ome.pipeline.stage import Stage, Work
from ome.stages import prepare
from ome.training.checkpoints import load_network
from ome.training.fit import _checkpoint
from tests.conftest import forked, tiny
from tests.test_stages import config, counting

Run = Callable[..., DictConfig]
SCENES = "scenes/synthetic_rgb_full"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def assert_nothing_half_written(folder: Path, status: int, printed: str, reason: str) -> None:
    assert status == 1, printed
    lines = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, printed
    assert "Traceback" not in printed
    assert f"({reason}): free some space; the same command resumes where it stopped" in lines[0]
    # Nothing is left that a later run, or a person, could take for whole.
    for path in folder.rglob("*.tif"):
        if "raw" not in path.parts:
            with Image.open(path) as image:
                image.load()


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50), lambda: bytearray(1 << 60)],
    ids=["torch", "numpy", "python"],
)
def test_a_lack_of_memory_is_one_line(tmp_path: Path, allocate: Callable[[], object]) -> None:
    broken = patch.object(prepare, "prepare_scenes", lambda *_, **__: allocate())
    status, printed = forked(tmp_path, *tiny("prepare"), sabotage=broken.start)
    assert status == 1
    assert "Traceback" not in printed
    assert "error: out of memory" in printed
    assert "lower stage.cam.batch" in printed


@pytest.mark.parametrize("write", [lambda path: write_text(path, "a\nof b\udcff.tif\n"), rasterio.open])
def test_a_name_that_is_not_utf_8_is_one_line(tmp_path: Path, write: Callable[[Path], object]) -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        write(tmp_path / "b\udcff.tif")
    line = disk_fault(raised.value)
    assert line is not None
    assert re.fullmatch(r"a name is not in UTF-8 \(b'[^\n]*b\\xff\.tif'\): rename the file or folder", line)


@pytest.mark.parametrize("read", [Path.resolve, Path.read_bytes, Path.mkdir])
def test_a_link_to_itself_is_one_line(tmp_path: Path, read: Callable[[Path], object]) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises((OSError, RuntimeError)) as raised:
        read(link / "below")
    line = disk_fault(raised.value)
    assert line is not None
    assert re.match(rf"cannot read or write {link}(/below)? \(Too many levels of symbolic links\): ", line)


def test_a_name_that_is_too_long_is_to_be_shortened(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as raised:
        write_text(tmp_path / ("scene" * 60), "")
    line = disk_fault(raised.value)
    assert line is not None
    assert line.endswith(" (File name too long): give the scene, image or run a shorter name")


def test_a_full_disk_ends_with_one_line_and_no_half_file(small_disk: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    overrides = [override for override in tiny("prepare") if not override.startswith("dataset.raw")]
    status, printed = forked(tmp_path, *overrides, f"dataset.raw={raw}", "scenes=disk/scenes")
    assert_nothing_half_written(small_disk, status, printed, "No space left on device")
    assert not (small_disk / "scenes").exists()
    assert not list(small_disk.rglob("index.json"))


def leave(disk: Path, size: int) -> None:
    """Fills a disk up to some bytes."""
    (disk / "filler").unlink(missing_ok=True)
    (disk / "filler").write_bytes(bytes(max(shutil.disk_usage(disk).free - size, 0)))


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
def test_a_map_on_a_full_disk_is_whole_or_not_there(small_disk: Path, tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 3, (700, 700), dtype=np.uint8)
    (tmp_path / "flat.raw").write_bytes(pixels.tobytes())
    grid, path = Grid(700, 700, None, Affine.identity()), small_disk / "map.tif"
    written: list[bool] = []
    reasons: set[int | None] = set()
    write: Callable[[], None] = partial(write_probability_cog, path, tmp_path / "flat.raw", grid, ["a"])
    if kind == "classes":
        write = partial(write_class_cog, path, tmp_path / "flat.raw", grid, list("abc"), [(0, 0, 0)] * 3)
    for size in range(4000, 300_000, 12_000):
        leave(small_disk, size)
        try:
            write()
        except OSError as error:
            reasons.add(error.errno)
        written.append(path.exists())
        if written[-1]:
            with rasterio.open(path) as raster:
                np.testing.assert_array_equal(raster.read(1), pixels)
            path.unlink()
        assert list(small_disk.glob(".*")) == []
    assert reasons == {errno.ENOSPC}
    assert 5 < sum(written) < len(written) - 5


def test_rows_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearly full disk takes some of the bytes without an error."""
    pwrite, rows = os.pwrite, np.random.default_rng(0).integers(0, 9, (2, 5, 700), dtype=np.uint8)
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data.cast("B")[:999], at))
    with FlatRasters(tmp_path / "rows", {"classes": 2}, 5, 700) as flat:
        flat.write(0, {"classes": rows})
        np.testing.assert_array_equal(flat.read("classes", 0, 5), rows)


@pytest.mark.parametrize("disk", ["full", "ro"])
@pytest.mark.parametrize("command", [["stage=prepare"], ["-m", "stage=prepare", "seed=0,1"]])
def test_a_disk_without_room_for_a_log_is_one_line(
    tmp_path: Path, small_disk: Path, disk: str, command: list[str]
) -> None:
    if disk == "full":
        with contextlib.suppress(OSError):
            (small_disk / "filler").write_bytes(bytes(700_000))
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    status, printed = forked(tmp_path, *command, f"output={small_disk}/runs", "scenes=disk/scenes")
    assert status == 1
    assert "Traceback" not in printed
    lines = {
        "full": "error: cannot write to the folder of the run (No space left on device): free some space",
        "ro": f"error: cannot read or write {small_disk}/runs",
    }
    assert lines[disk] in printed


@pytest.mark.parametrize(
    ("stage", "limit"),
    [("prepare", 100_000), pytest.param("cam", 1_000_000, marks=pytest.mark.slow)],
)
def test_a_file_that_cannot_grow_is_a_full_disk(tmp_path: Path, stage: str, limit: int) -> None:
    limits = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    one_epoch = ["stage.cam.epochs=1"]
    status, printed = forked(tmp_path, *tiny(), *one_epoch, f"stage.until={stage}", sabotage=limits)
    assert_nothing_half_written(tmp_path, status, printed, "File too large")
    assert not list(tmp_path.rglob("network.pt"))
    if stage == "cam":
        assert Manifest.read(tmp_path / SCENES) is not None
        status, printed = forked(tmp_path, *tiny(), *one_epoch, f"stage.until={stage}")
        assert status == 0, printed


@pytest.mark.parametrize("free", [4, 20, 44, 80, 112, 200, 400])
def test_a_disk_that_is_full_within_the_polygons_is_one_line(small_disk: Path, free: int) -> None:
    """SQLite reports it in other words at each point, e.g. as a table that is missing."""
    pytest.importorskip("pyogrio")
    from shapely import Point  # noqa: PLC0415 - part of an extra

    from ome.geo.vectors import write_regions  # noqa: PLC0415

    filler = shutil.disk_usage(small_disk).free - free * 1024
    (small_disk / "filler").write_bytes(bytes(filler))
    circles = [Region(0, 9, 9, 9, [Point(3 * place, 0).buffer(1)]) for place in range(600)]
    path, utm = small_disk / "a.gpkg", CRS.from_epsg(32633)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_regions(path, [circles, circles], ["field"], [(1, 2, 3)], utm, Affine.scale(9), 0, "m2")
    line = "(No space left on device): free some space; the same command resumes where it stopped"
    assert disk_fault(raised.value) == f"cannot write to {path} {line}"
    assert [left.name for left in small_disk.iterdir()] == ["filler"]


def wait(ready: Path) -> None:
    """Makes this process say that it writes the tags, and work on them for long."""
    replace = Path.replace

    def waiting(path: Path, target: Path) -> Path:
        if target.name == "tags.csv":
            ready.touch()
            time.sleep(200)
        return replace(path, target)

    Path.replace = waiting  # type: ignore[assignment,method-assign]


def test_the_second_of_two_runs_in_one_folder_is_refused(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    first = get_context("fork").Process(
        target=forked,
        args=(tmp_path, *tiny(), "stage.until=labels"),
        kwargs={"sabotage": partial(wait, ready)},
    )
    first.start()
    deadline = time.monotonic() + 100
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    other = tmp_path / "other"
    other.mkdir()
    labels = tmp_path / "runs/synthetic_tu-test_resnet/labels"
    overrides = [f"scenes={tmp_path / SCENES}", f"run_dir={labels.parent}", f"dataset.raw={tmp_path}/raw"]
    status, printed = forked(other, *tiny("labels"), *overrides)
    assert status == 1
    assert printed.startswith(f"error: another process is working on {labels}: wait for it")
    children = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True, check=False)
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGKILL)
    first.join(30)
    assert not first.is_alive()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EWOULDBLOCK, "another process is working on x: wait for it"),
        (errno.EACCES, "another process is working on x: wait for it"),
        (
            errno.ENOLCK,
            r"is on a file system without file locks \(No locks available\): choose another place",
        ),
        (errno.EOPNOTSUPP, "without file locks"),
        (errno.ENOSYS, "without file locks"),
    ],
)
def test_a_file_system_without_locks_is_not_one_in_use(tmp_path: Path, number: int, message: str) -> None:
    fault = OSError(number, os.strerror(number))
    with (
        patch("fcntl.flock", side_effect=fault),
        pytest.raises(UserError, match=message) as error,
        locked(tmp_path / "lock", "x", wait=False),
    ):
        pass
    assert isinstance(error.value, InUseError) == (number in {errno.EWOULDBLOCK, errno.EACCES})


def test_a_stage_that_fails_before_it_wrote_anything_leaves_no_folder(tmp_path: Path) -> None:
    def fail(work: Work) -> dict[str, Any]:
        raise UserError(f"nothing in {work.folder}")

    with pytest.raises(UserError, match="nothing in"):
        execute(Stage("made", fail), config(tmp_path))
    assert not (tmp_path / "made.partial").exists()


def chapters() -> tuple[Stage, list[str]]:
    """A stage that writes five files one after the other and keeps what is there, and what it wrote."""
    written: list[str] = []

    def run(work: Work) -> dict[str, Any]:
        for number in range(5):
            path = work.folder / f"part/{number}.txt"
            if not path.exists():
                write_text(path, f"chapter {number}")
                os.utime(path, ns=(number, number))
                written.append(path.name)
        return {}

    return Stage("made", run), written


def test_a_damaged_file_and_what_came_after_it_is_made_again(tmp_path: Path) -> None:
    stage, written = chapters()
    execute(stage, config(tmp_path))
    assert not execute(stage, config(tmp_path))
    (tmp_path / "made/part/3.txt").write_text("chap")  # cut short
    assert execute(stage, config(tmp_path))
    (tmp_path / "made/part/2.txt").unlink()
    assert execute(stage, config(tmp_path))
    assert written == [f"{number}.txt" for number in (0, 1, 2, 3, 4, 3, 4, 2, 3, 4)]
    assert [(tmp_path / f"made/part/{n}.txt").read_text() for n in range(5)] == [
        f"chapter {n}" for n in range(5)
    ]


def test_a_changed_byte_is_found_by_its_hash(tmp_path: Path) -> None:
    stage, written = chapters()
    execute(stage, config(tmp_path))
    path = tmp_path / "made/part/4.txt"
    before = path.stat()
    path.write_text("chapter 5")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a fault of the disk
    assert not execute(stage, config(tmp_path))
    assert execute(stage, config(tmp_path), verify=True)
    assert written[5:] == ["4.txt"]
    assert not execute(stage, config(tmp_path), verify=True)


def test_a_copy_without_times_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, _ = chapters()
    execute(stage, config(tmp_path))
    hashed: list[Path] = []
    hashes_of = listing.hashes_of
    monkeypatch.setattr(listing, "hashes_of", lambda paths: hashed.extend(paths) or hashes_of(paths))
    for path in (tmp_path / "made/part").iterdir():
        os.utime(path, ns=(0, time.time_ns() + 10**9))
    for _ in range(2):
        assert not execute(stage, config(tmp_path))
    assert len(hashed) == 5


@pytest.mark.parametrize("link", [True, False])
def test_a_file_of_which_a_dead_link_or_an_empty_folder_is_left_is_made_again(
    tmp_path: Path, link: bool
) -> None:
    stage, runs = counting()
    execute(stage, config(tmp_path))
    path = tmp_path / "made/artefact"
    path.unlink()
    path.symlink_to("/nowhere/artefact") if link else path.mkdir()
    for _ in range(2):
        execute(stage, config(tmp_path))
        assert path.read_text() == "whole"
    assert not path.is_symlink()
    assert len(runs) == 2


@pytest.mark.parametrize(
    "reason",
    [
        "unable to write to file </torch_1_2_3>: No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_1_2>: Resource temporarily unavailable (11)",
        "DataLoader worker is killed by signal: Bus error. It is possible that it is out of shared memory.",
    ],
)
def test_shared_memory_is_not_the_disk(tmp_path: Path, reason: str) -> None:
    line = str(disk_fault(RuntimeError(reason), tmp_path))
    assert "type trainer.workers=0, or enlarge /dev/shm" in line


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.tif.msk", "a.png.ovr"])
def test_an_image_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    image = tmp_path / name[:5]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(image)
    (tmp_path / name).touch()
    # Root may read everything.
    monkeypatch.setattr(os, "access", lambda path, *_: Path(path).name != name)
    with pytest.raises(UserError, match=rf"{name} cannot be read \(permission denied\): make it readable"):
        Raster(image)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
        OSError(errno.EIO, os.strerror(errno.EIO)),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["permission", "disk", "memory", "memory of torch"],
)
@pytest.mark.parametrize(
    ("name", "reader", "read"),
    [
        ("network.pt", "torch.load", lambda path: load_network(nn.Linear(1, 1), path.parent)),
        ("last.ckpt", "torch.load", lambda path: _checkpoint(path.parent)),
        ("file.pth", "torch.load", read_checkpoint),
        ("a.npz", "numpy.load", lambda path: read_cams(path, 2)),
        ("a.png", "PIL.Image.open", read_png),
    ],
)
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    name: str,
    reader: str,
    read: Callable[[Path], object],
) -> None:
    """Nobody is told to delete it, and no checkpoint of a training is deleted."""
    path = tmp_path / name
    path.write_bytes(b"whole")
    monkeypatch.setattr(reader, lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises((OSError, MemoryError, RuntimeError, ValueError)) as raised:
        read(path)
    assert not isinstance(raised.value, UserError)
    assert path.read_bytes() == b"whole"


def test_a_damaged_list_of_files_makes_everything_again(tmp_path: Path) -> None:
    stage, written = chapters()
    execute(stage, config(tmp_path))
    lines = (tmp_path / "made" / listing.NAME).read_text().splitlines()
    (tmp_path / "made" / listing.NAME).write_text("\n".join(lines[:3]))
    assert execute(stage, config(tmp_path))
    assert len(written) == 10


def test_what_was_listed_after_a_kill_between_two_renames_is_found_again(tmp_path: Path) -> None:
    stage, written = chapters()
    execute(stage, config(tmp_path))
    (tmp_path / "made/part/4.txt").unlink()
    (tmp_path / "made").rename(tmp_path / "made.partial")  # as if killed while the result was taken back
    assert execute(stage, config(tmp_path))
    assert written[5:] == ["4.txt"]


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._mark),)


def test_nothing_in_a_file_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "executed"
    for name in ("network.pt", "last.ckpt"):
        torch.save({"state_dict": Payload(mark), "global_step": 3}, tmp_path / name)
    np.savez(tmp_path / "cams.npz", differences=np.array([Payload(mark)], dtype=object), classes=np.zeros(1))
    with pytest.raises(UserError, match=r"network\.pt holds no weights \(UnpicklingError\)"):
        load_network(nn.Linear(1, 1), tmp_path)
    assert _checkpoint(tmp_path) is None
    assert "last.ckpt: checkpoint is corrupt (UnpicklingError); starting over" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(UserError, match="cannot read the CAMs"):
        read_cams(tmp_path / "cams.npz", 2)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))  # the trap is set
    assert mark.exists()


@pytest.mark.parametrize("name", ["../../a.tif", "/etc/a.tif", "in/../../a.tif"])
def test_an_archive_that_leads_out_of_itself_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(
        UserError, match=r"images\.zip holds .*a\.tif', whose path leaves the archive: refused"
    ):
        RawFiles(RawSource("{scene}.tif", "images.zip"), tmp_path)


def test_broken_images_are_named_and_left_out_when_asked(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/field_{number:02d}.png")
    broken = tmp_path / "images/field_07.png"
    broken.write_bytes(broken.read_bytes()[:1500])
    rows = [f"field_{number:02d},{'water' if number % 2 else 'field'}" for number in range(12)]
    (tmp_path / "tags.csv").write_text("\n".join(["image,tags", *rows]))
    custom = ["dataset=custom", "dataset.raw=images", "dataset.tags=tags.csv", "dataset.tile.size=32"]
    with pytest.raises(UserError, match=r"field_07\.png is damaged"):
        run_here("stage=prepare", *custom)
    config = run_here("stage=prepare", *custom, "stage.prepare.broken=skip")
    index = SceneIndex.read(Path(config.scenes))
    assert index.broken == ("field_07",)
    assert len(index.scenes) == 11
    manifest = Manifest.read(Path(config.scenes))
    assert manifest is not None
    assert manifest.counts["broken_scenes"] == 1
    run_here("stage=labels", *custom)
    tags = (Path(config.run_dir) / "labels/tags.csv").read_text().splitlines()
    assert len(tags) == 12
    assert not any("field_07" in line for line in tags)
