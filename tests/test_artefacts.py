"""Files on disk: whole or not there; CAMs as small as they can be without changing a mask."""

from pathlib import Path

import numpy as np
import pytest

from ome.data.cams import read_cams, write_cams
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.files import read_csv, save_atomically, write_csv
from ome.pipeline.checksums import damaged, write_listing
from ome.pipeline.layout import cam_path
from ome.progress import track


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "artefact.txt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        save_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_csv_keeps_commas_quotes_and_letters(tmp_path: Path) -> None:
    write_csv(tmp_path / "table.csv", ["name", "value"], [["forêt, dense", 'a "b"']])
    assert read_csv(tmp_path / "table.csv") == [{"name": "forêt, dense", "value": 'a "b"'}]


def test_cams_come_back_within_half_precision_and_zero_without_a_tag(tmp_path: Path) -> None:
    path = cam_path(tmp_path, Tile("2_10", 0, 64, 32, 32))
    assert path == tmp_path / "cams/2_10/2_10_00000_00064.npz"
    cams = np.random.default_rng(0).random((5, 32, 32), dtype=np.float32)
    tags = np.array([0, 1, 0, 1, 0], dtype=np.uint8)
    write_cams(path, cams, tags)
    read = read_cams(path, 5)
    assert read.shape == (5, 32, 32)
    assert not read[tags == 0].any()
    np.testing.assert_array_equal(read[tags == 1], cams[tags == 1].astype(np.float16))


def test_smooth_cams_take_a_fraction_of_float64(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:256, :256] / 256
    waves = [np.sin((3 + k) * rows) ** 2 * np.cos(5 * columns + k) ** 2 for k in range(5)]
    cams = np.stack(waves).astype(np.float32)
    path = tmp_path / "cams.npz"
    write_cams(path, cams, np.ones(5, np.uint8))
    np.testing.assert_array_equal(read_cams(path, 5), cams.astype(np.float16))
    assert path.stat().st_size < cams.size * 8 / 10


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_damaged_cams_are_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "cams.npz"
    write_cams(path, np.ones((2, 64, 64), np.float32), np.ones(2, np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UserError, match=r"cannot read the CAMs .*cams\.npz: run its stage"):
        read_cams(path, 2)


def test_progress_in_a_log_says_how_far_how_fast_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), "tiles", 3)) == [0, 1, 2]
    assert "tiles: 3/3" in capsys.readouterr().out


@pytest.mark.parametrize("verify", [False, True])
def test_what_viewers_write_beside_a_map_does_not_damage_it(tmp_path: Path, verify: bool) -> None:
    for name in ("city.tif", "city.tif.aux.xml", "city.qml"):
        (tmp_path / name).write_text("as written")
    files = write_listing(tmp_path)
    for name in ("city.tif.aux.xml", "city.qml", "city_confidence.tif.aux.xml"):
        (tmp_path / name).write_text("with statistics, or a style of the user's own")
    assert damaged(tmp_path, files, verify=verify) == []
    (tmp_path / "city.qml").unlink()
    assert damaged(tmp_path, files, verify=verify) == ["city.qml"]
    (tmp_path / "city.tif").write_text("cut")
    assert damaged(tmp_path, files, verify=verify) == ["city.tif", "city.qml"]
