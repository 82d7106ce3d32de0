"""A list of scenes: each mapped once, the damaged one left out, by one process or two."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.cli.plan import plan_of
from ome.distributed.turns import Turns
from ome.errors import UserError
from ome.files import read_csv
from ome.geo.scene_list import listed_scenes, name_of_list
from ome.inference.area_tables import write_total_areas
from ome.inference.predictor import Predictor
from tests.conftest import compose_config, forked_pair
from tests.test_maps import random_scene, write
from tests.test_predict import BASE
from tests.trained_runs import make_run

Run = Callable[..., DictConfig]
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A run and a list of five scenes of different sizes, the third of which is damaged."""
    make_run(tmp_path / "run")
    (tmp_path / "data").mkdir()
    for index, name in enumerate(NAMES):
        write(tmp_path / f"data/{name}.tif", random_scene(40 + 30 * index, 70))
    whole = write(tmp_path / "data/broken.tif", random_scene(64, 64)).read_bytes()
    (tmp_path / "data/broken.tif").write_bytes(whole[: len(whole) // 2])
    lines = [
        "# north to south",
        "data/a.tif",
        "data/b.tif",
        "",
        "data/broken.tif",
        "data/c.tif",
        "data/d.tif",
    ]
    (tmp_path / "all.txt").write_text("\n".join([*lines, "data/a.tif"]))
    return tmp_path


def maps_of(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted((folder / "run/predict").glob("*/*.tif"))}


def times_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted((folder / "run/predict").glob("*/*.tif"))}


@pytest.mark.parametrize(
    ("overrides", "networks"),
    [((), 1), (("prediction.stride=0.5",), 1), (("stage.predict.others=[other]",), 2)],
    ids=["as it is", "stride", "two networks"],
)
def test_a_plan_counts_the_windows_and_names_what_will_fail(
    run_here: Run,
    scenes: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    networks: int,
) -> None:
    monkeypatch.chdir(scenes)
    make_run(scenes / "other", seed=1)
    (scenes / "list.txt").write_text("data/a.tif\ndata/none.tif\ndata/d.tif\n")
    settings = [*BASE, "dataset.tile.size=999", *overrides]  # the segmenter's own tile is 64 pixels
    (row,), _ = plan_of(compose_config([*settings, "stage.predict.scene=list.txt"]), ["predict"])
    assert list(row.faults) == [str(scenes / "data/none.tif")]
    sizes = []
    predict = Predictor.__call__

    def counted(self: Predictor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(images))
        return predict(self, images)

    monkeypatch.setattr(Predictor, "__call__", counted)
    with pytest.raises(UserError, match="1 of 3 failed"):
        run_here(*settings, "stage.predict.scene=list.txt")
    assert row.amounts.units == {"segmenter window": sum(sizes)}
    assert sum(sizes) % networks == 0
    (row,), _ = plan_of(compose_config([*settings, "stage.predict.scene=list.txt"]), ["predict"])
    assert (row.title, row.forecast.state) == ("predict, 0 of 3", "up to date")


@pytest.mark.parametrize("name", ["list_failed.txt", "list_areas.csv"])
def test_tables_beside_the_maps_replace_no_file(run_here: Run, scenes: Path, name: str) -> None:
    (scenes / "list.txt").write_text("data/a.tif\n")
    (scenes / "run/predict").mkdir()
    (scenes / "run/predict" / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name} was not written by ome for a list of scenes"):
        run_here(*BASE, "stage.predict.scene=list.txt")
    assert [path.name for path in (scenes / "run/predict").iterdir()] == [name]
    assert (scenes / "run/predict" / name).read_text() == "mine"


def test_tables_of_another_list_of_the_same_name_are_not_replaced(run_here: Run, scenes: Path) -> None:
    for _ in range(2):
        run_here(*BASE, f"stage.predict.scene={scenes}/data/?.tif")
    table = (scenes / "run/predict/data_areas.csv").read_text()
    (scenes / "b/data").mkdir(parents=True)
    write(scenes / "b/data/e.tif", random_scene(40, 40))
    with pytest.raises(UserError, match=r"data_areas\.csv is of .*/data/\?\.tif, and the maps of .*/b/data"):
        run_here(*BASE, f"stage.predict.scene={scenes}/b/data/*.tif")
    assert (scenes / "run/predict/data_areas.csv").read_text() == table


@pytest.mark.parametrize("second", ["data/[cd].tif", "two/data.txt"])
def test_the_name_of_a_list_or_pattern_is_that_of_its_tables_and_not_of_its_maps(
    run_here: Run, scenes: Path, second: str
) -> None:
    (scenes / "two").mkdir()
    listed = [f"{scenes}/data/{name}.tif\n" for name in ("c", "broken", "d")]
    (scenes / "two/data.txt").write_text("".join(listed))
    run_here(*BASE, "stage.predict.scene='data/[ab].tif'")
    first = (scenes / "run/predict/data_areas.csv").read_text()
    typed = [*BASE, f"stage.predict.scene='{second}'"]
    remedy = r"data_areas\.csv is of .* another name, --name NAME or stage\.predict\.map_name=NAME"
    with pytest.raises(UserError, match=remedy):
        run_here(*typed)
    named = [*typed, "stage.predict.map_name=south"]
    with pytest.raises(UserError, match="1 of 3 failed") if second.endswith(".txt") else nullcontext():
        run_here(*named)
    tables = {path.name for path in (scenes / "run/predict").glob("[!.]*_*.*")}
    failed = {"south_failed.txt"} if second.endswith(".txt") else set()
    assert tables == {"data_areas.csv", "south_areas.csv", *failed}
    assert (scenes / "run/predict/data_areas.csv").read_text() == first
    assert {row["scene"] for row in read_csv(scenes / "run/predict/south_areas.csv")} == {
        *(str(scenes / f"data/{name}.tif") for name in "cd"),
        "all",
    }
    assert list(maps_of(scenes)) == list(NAMES)
    before = times_of(scenes)
    run_here(*BASE, "stage.predict.scene=data/c.tif")  # no part of the map depends on the name of a list
    assert times_of(scenes) == before
    with pytest.raises(UserError, match="map_name=x/y is not the name of a folder"):
        run_here(*typed, "stage.predict.map_name=x/y")


@pytest.mark.parametrize("typed", ["all.txt", "data/?.tif"])
def test_a_list_that_was_moved_with_its_scenes_and_run_knows_its_tables_and_maps(
    run_here: Run, tmp_path: Path, scenes: Path, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scenes / "all.txt").write_text("data/a.tif\ndata/b.tif\n")
    run_here(*BASE, f"stage.predict.scene={typed}")
    before = times_of(scenes)
    moved = scenes.rename(tmp_path.with_name(f"{tmp_path.name}_moved"))
    monkeypatch.chdir(moved)
    run_here(*BASE, f"stage.predict.scene={typed}")
    assert list(times_of(moved).values()) == list(before.values())


def test_a_damaged_scene_is_left_out_and_the_rest_is_mapped_once(run_here: Run, scenes: Path) -> None:
    times = []
    config = compose_config([*BASE, "stage.predict.scene=all.txt"])
    assert [row.title for row in plan_of(config, ["predict"])[0]] == ["predict, 5 of 5"]
    for _ in range(2):  # and nothing is mapped again
        with pytest.raises(UserError) as raised:
            run_here(*BASE, "stage.predict.scene=all.txt")
        first, *rest = str(raised.value).splitlines()
        assert first == "1 of 5 failed"
        assert [line.partition(" is damaged")[0] for line in rest] == [str(scenes / "data/broken.tif")]
        times.append(times_of(scenes))
        assert [row.title for row in plan_of(config, ["predict"])[0]] == ["predict, 1 of 5"]
    assert times[0] == times[1]
    assert list(maps_of(scenes)) == list(NAMES)
    failures = scenes / "run/predict/all_failed.txt"
    assert listed_scenes(str(failures)) == [str(scenes / "data/broken.tif")]
    rows = read_csv(scenes / "run/predict/all_areas.csv")
    pixels = sum(int(row["pixels"]) for row in rows if row["scene"] == "all")
    assert pixels == sum(70 * (40 + 30 * index) for index in range(4))
    alone = read_csv(scenes / "run/predict/b/b_areas.csv")
    assert [row["pixels"] for row in rows if row["scene"].endswith("b.tif")] == [r["pixels"] for r in alone]

    write(scenes / "data/broken.tif", random_scene(64, 64))
    run_here(*BASE, "stage.predict.scene='data/*.tif'")
    assert list(maps_of(scenes)) == ["a", "b", "broken", "c", "d"]
    assert {path: time for path, time in times_of(scenes).items() if path in times[0]} == times[0]
    assert len(read_csv(scenes / "run/predict/data_areas.csv")) == 6 * 3


def test_two_processes_share_a_list_and_a_scene(scenes: Path, run_here: Run) -> None:
    two = ("trainer=ddp_cpu", "trainer.workers=0")
    words = [word for word in BASE if not word.startswith("trainer=")]
    status, printed = forked_pair(scenes, *words, *two, "stage.predict.scene=all.txt")
    assert status == 1
    assert printed.count("1 of 5 failed") == 1, printed
    together = maps_of(scenes)
    assert list(together) == list(NAMES)
    write(scenes / "data/tall.tif", random_scene(300, 90))
    status, printed = forked_pair(scenes, *words, *two, "stage.predict.scene=data/tall.tif")
    assert status == 0, printed
    together |= {"tall": (scenes / "run/predict/tall/tall.tif").read_bytes()}
    for name in together:
        run_here(*BASE, f"stage.predict.scene=data/{name}.tif", "force=true")
    assert maps_of(scenes) == together


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["data/a.tif", "other/a.tif"], "would both lie in a: rename one of them"),
        (["data/a.tif", "other/A.png"], "would both lie in A: rename one of them"),
        (["# nothing"], "all.txt lists no scene"),
    ],
)
def test_lists_that_cannot_be_mapped_are_refused_before_the_work(
    run_here: Run, scenes: Path, lines: list[str], message: str
) -> None:
    (scenes / "all.txt").write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(UserError, match=message):
        run_here(*BASE, "stage.predict.scene=all.txt")
    assert not (scenes / "run/predict").exists()


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_a_list_in_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "all.txt").write_text("vallée.tif\n", encoding=encoding)
    if encoding == "utf-8-sig":
        assert listed_scenes(str(tmp_path / "all.txt")) == [str(tmp_path / "vallée.tif")]
        return
    with pytest.raises(UserError, match=r"all\.txt is not text in UTF-8"):
        listed_scenes(str(tmp_path / "all.txt"))


def test_a_folder_of_another_scene_is_refused_before_the_work(run_here: Run, scenes: Path) -> None:
    run_here(*BASE, "stage.predict.scene=data/d.tif")
    (scenes / "other").mkdir()
    write(scenes / "other/d.tif", random_scene(30, 30))
    (scenes / "all.txt").write_text("data/a.tif\nother/d.tif")
    with pytest.raises(UserError, match=r"holds the result of stage=predict of .*data/d\.tif"):
        run_here(*BASE, "stage.predict.scene=all.txt")
    assert list(maps_of(scenes)) == ["d"]


@pytest.mark.parametrize("others", ["run", "./run", "other,other", "other,link"])
def test_a_run_counts_once_in_a_mean(run_here: Run, scenes: Path, others: str) -> None:
    make_run(scenes / "other", seed=1)
    (scenes / "link").symlink_to("other")
    with pytest.raises(UserError, match="is named twice, and would count twice in the mean"):
        run_here(*BASE, "stage.predict.scene=data/a.tif", f"stage.predict.others=[{others}]")
    assert not (scenes / "run/predict").exists()


def test_what_a_list_and_a_pattern_stand_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("in/b.tif", "in/a.tif", "[1].tif"):
        (tmp_path / name).touch()
    (tmp_path / "l.txt").write_text(
        "\ufeffin/a.tif\r\n# no\r\nhttps://x.org/c.tif\r\n/vsis3/x/d.tif\r\nin/a.tif\nin/../in/a.tif"
    )
    (tmp_path / "folder.txt").mkdir()
    assert listed_scenes(str(tmp_path / "folder.txt")) is None, "a folder of images"
    expected = [str(tmp_path / "in/a.tif"), "https://x.org/c.tif", "/vsis3/x/d.tif"]
    assert listed_scenes(str(tmp_path / "l.txt")) == expected
    assert listed_scenes(f"{tmp_path}/**/*.tif") == sorted(str(path) for path in tmp_path.rglob("*.tif"))
    assert listed_scenes(f"{tmp_path}/[1].tif") is None, "a scene of that very name"
    assert listed_scenes(f"{tmp_path}/in") is None
    assert name_of_list("/data/north/**/*.tif") == "north"
    assert name_of_list("lists/two.txt") == "two"
    assert name_of_list("*.tif") == "scenes"
    for wrong, message in (("no.txt", "does not exist"), ("no*.tif", "no file matches")):
        with pytest.raises(UserError, match=message):
            listed_scenes(f"{tmp_path}/{wrong}")


def test_areas_are_summed_where_every_scene_has_some(tmp_path: Path) -> None:
    measured = {"pixels": {"road": 3, "tree": 1}, "area_m2": {"road": 12.0, "tree": 4.0}}
    photographs = {"maps": {"x": {"pixels": {"road": 1, "tree": 0}}, "y": {"pixels": {"road": 0, "tree": 5}}}}
    write_total_areas(tmp_path / "t.csv", {"one": measured, "two": measured})
    last = read_csv(tmp_path / "t.csv")[-2]
    assert last == {"scene": "all", "class": "road", "pixels": "6", "percent": "75.00", "area_m2": "24.00"}
    coarse = {"pixels": {"road": 1, "tree": 9}, "area_m2": {"road": 100.0, "tree": 900.0}}
    write_total_areas(tmp_path / "t.csv", {"drone": measured, "satellite": coarse})
    assert [row["percent"] for row in read_csv(tmp_path / "t.csv")[-2:]] == ["11.02", "88.98"], "of the area"
    write_total_areas(tmp_path / "t.csv", {"one": measured, "folder": photographs})
    rows = read_csv(tmp_path / "t.csv")
    assert [row["scene"] for row in rows[::2]] == ["one", "folder/x", "folder/y", "all"]
    assert [(row["pixels"], row["area_m2"]) for row in rows[-2:]] == [("4", ""), ("6", "")]
    write_total_areas(tmp_path / "none.csv", {})
    assert not (tmp_path / "none.csv").exists()


def test_one_process_takes_every_turn() -> None:
    turns = Turns(3)
    assert list(turns) == [0, 1, 2]
    assert [turns.add("done"), turns.add("done", 2), turns.add("other", 0)] == [1, 3, 0]
    np.testing.assert_array_equal(list(Turns(2)), [0, 1])
