"""Published data sets in their layouts: miniature archives, as downloaded, unpacked or loose."""

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from omegaconf import DictConfig

from ome.data.archives import RawFiles
from ome.data.prepare import prepare_scenes
from ome.data.raw_source import RawSource
from ome.data.raw_split import Split, resolve_split
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.ignore import IGNORE
from tests import archives

Run = Callable[..., DictConfig]
Values = list[list[int]]

# 2 x 4 pixels each: values as the masks have them, and the class indices that they stand for (255: none).
FIRST: Values = [[0, 1, 2, 2], [3, 3, 3, 8]]
SECOND: Values = [[4, 5, 5, 0], [5, 5, 7, 1]]


class Miniature(NamedTuple):
    """Members of each archive, the scenes by split, and the pixels of some classes, counted by hand."""

    files: dict[str, dict[str, bytes]]
    splits: dict[str, str]
    masks: dict[str, Values]
    pixels: dict[str, int]


def image(bands: int, driver: str = "GTiff") -> bytes:
    return archives.raster(archives.image(1, bands, 2, 4), driver)


def mask(values: Values, driver: str = "GTiff") -> bytes:
    return archives.raster(np.asarray(values, dtype=np.uint8)[..., None], driver)


def loveda() -> Miniature:
    files: dict[str, dict[str, bytes]] = {
        "Train.zip": {
            "Train/Urban/images_png/1366.png": image(3, "PNG"),
            "Train/Urban/masks_png/1366.png": mask([[0, 1, 2, 2], [3, 3, 3, 1]], "PNG"),
            "Train/Rural/images_png/0.png": image(3, "PNG"),
            "Train/Rural/masks_png/0.png": mask(SECOND, "PNG"),
        },
        "Val.zip": {
            "Val/Rural/images_png/2522.png": image(3, "PNG"),
            "Val/Rural/masks_png/2522.png": mask([[7, 6, 0, 1], [1, 1, 1, 1]], "PNG"),
        },
    }
    masks = {
        "1366": [[255, 255, 0, 0], [1, 1, 1, 255]],
        "0": [[2, 3, 3, 255], [3, 3, 5, 255]],
        "2522": [[5, 4, 255, 255], [255, 255, 255, 255]],
    }
    pixels = {"building": 2, "road": 3, "water": 1, "barren": 4, "forest": 1, "agriculture": 2}
    return Miniature(files, {"0": "train", "1366": "train", "2522": "test"}, masks, pixels)


def openearthmap() -> Miniature:
    top = "OpenEarthMap_wo_xBD/"
    files = {
        f"{top}aachen/images/aachen_1.tif": image(3),
        f"{top}aachen/labels/aachen_1.tif": mask(FIRST),
        f"{top}tokyo/images/tokyo_2.tif": image(3),
        f"{top}tokyo/labels/tokyo_2.tif": mask(SECOND),
        # An image of xBD: its labels are there, the image has to be fetched apart.
        f"{top}palu/labels/palu_3.tif": mask(FIRST),
        f"{top}train.txt": b"aachen_1.tif\npalu_3.tif\n",
        f"{top}val.txt": b"tokyo_2.tif\n",
    }
    masks = {"aachen_1": [[255, 0, 1, 1], [2, 2, 2, 7]], "tokyo_2": [[3, 4, 4, 255], [4, 4, 6, 0]]}
    pixels = {
        "bareland": 2,
        "rangeland": 2,
        "developed_space": 3,
        "road": 1,
        "tree": 4,
        "agriculture": 1,
        "building": 1,
    }
    return Miniature({"OpenEarthMap.zip": files}, {"aachen_1": "train", "tokyo_2": "test"}, masks, pixels)


def flair() -> Miniature:
    train, test = "flair_aerial_train", "flair_1_aerial_test"
    files = {
        f"{train}.zip": {
            f"{train}/D006_2020/Z1_NN/img/IMG_000001.tif": image(5),
            f"{train}/D004_2021/Z10_AU/img/IMG_000826.tif": image(5),
        },
        f"{test}.zip": {f"{test}/D012_2019/Z10_UU/img/IMG_062613.tif": image(5)},
        "flair_labels_train.zip": {
            "flair_labels_train/D006_2020/Z1_NN/msk/MSK_000001.tif": mask([[1, 2, 12, 12], [13, 19, 3, 3]]),
            "flair_labels_train/D004_2021/Z10_AU/msk/MSK_000826.tif": mask([[11] * 4, [18] * 4]),
        },
        "flair_1_labels_test.zip": {
            "flair_1_labels_test/D012_2019/Z10_UU/msk/MSK_062613.tif": mask([[10] * 4, [1, 1, 15, 17]])
        },
    }
    splits = {"000001": "train", "000826": "val", "062613": "test"}
    masks = {
        "000001": [[0, 1, 11, 11], [255, 255, 2, 2]],
        "000826": [[10] * 4, [255] * 4],
        "062613": [[9] * 4, [0, 0, 255, 255]],
    }
    pixels = {"building": 3, "pervious_surface": 1, "impervious_surface": 2, "herbaceous_vegetation": 4}
    return Miniature(files, splits, masks, pixels | {"agricultural_land": 4, "plowed_land": 2})


def isaid() -> Miniature:
    def colours(*rows: list[tuple[int, int, int]]) -> bytes:
        return archives.raster(np.asarray(rows, dtype=np.uint8), "PNG")

    ship, plane, harbor, none = (0, 0, 63), (0, 127, 255), (0, 100, 155), (0, 0, 0)
    color = "images/P{}_instance_color_RGB.png"
    files = {
        "train/images/part1.zip": {"images/P0000.png": image(3, "PNG")},
        "train/images/part2.zip": {"images/P0002.png": image(3, "PNG")},
        "train/images/part3.zip": {"images/P0005.png": image(3, "PNG")},
        "val/images/part1.zip": {"images/P0003.png": image(3, "PNG")},
        "train/Semantic_masks/images.zip": {
            color.format("0000"): colours([ship, ship, none, none], [none, none, plane, plane]),
            color.format("0002"): colours([harbor] * 4, [none] * 4),
            color.format("0005"): colours([ship, none, none, none], [none] * 4),
        },
        "val/Semantic_masks/images.zip": {color.format("0003"): colours([plane] * 4, [none] * 4)},
    }
    splits = {"P0000": "train", "P0002": "train", "P0005": "train", "P0003": "test"}
    masks = {
        "P0000": [[0, 0, 255, 255], [255, 255, 13, 13]],
        "P0002": [[14] * 4, [255] * 4],
        "P0005": [[0, 255, 255, 255], [255] * 4],
        "P0003": [[13] * 4, [255] * 4],
    }
    return Miniature(files, splits, masks, {"ship": 3, "plane": 6, "harbor": 4})


SETS = {make.__name__: make for make in (loveda, openearthmap, flair, isaid)}


def place(files: Mapping[str, Mapping[str, bytes]], raw: Path, form: str) -> None:
    """As zip archives, or each unpacked to the folder of its name."""
    for archive, members in files.items():
        folder = (raw / archive).parent
        folder.mkdir(parents=True, exist_ok=True)
        kind: archives.Form = "zip" if form == "zip" else "folder"
        archives.pack(members, folder, Path(archive).name, kind)


@pytest.mark.parametrize("form", ["zip", pytest.param("folder", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SETS)
def test_scenes_masks_and_tags_are_those_of_the_miniature(
    name: str, form: str, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = SETS[name]()
    place(miniature.files, tmp_path / "raw", form)
    config = run_here(
        *(f"dataset={name}", "dataset.raw=raw", "stage=all", "stage.until=labels"),
        "dataset.tile={size: 2, stride: 2}",
    )
    index = SceneIndex.read(Path(config.scenes))
    assert {scene.name: scene.split for scene in index.scenes} == miniature.splits
    reader = SceneReader(index)
    for scene, values in miniature.masks.items():
        assert reader.mask(Tile(scene, 0, 0, 2, 4)).tolist() == values
        channels = [3, 0, 1] if config.dataset.bands == "irrg" else [0, 1, 2]
        pixels = archives.image(1, 5 if name == "flair" else 3, 2, 4)
        assert np.array_equal(reader.image(Tile(scene, 0, 0, 2, 4)), pixels[..., channels])
    assert {name: count for name, count in index.class_pixels.items() if count} == miniature.pixels
    printed = capsys.readouterr().out
    counts = [f"{list(miniature.splits.values()).count(split)} {split}" for split in ("train", "val", "test")]
    assert f"{', '.join(counts)} scenes" in printed, "the page on data sets asks to check them"
    for each, count in miniature.pixels.items():
        assert re.search(rf"{each} +│ +{count} │", printed)
    assert index.unknown.pixels == 0
    with (Path(config.run_dir) / "labels/tags.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        column = int(row["column"])
        classes = {value for line in miniature.masks[row["scene"]] for value in line[column : column + 2]}
        tagged = {k for k, each in enumerate(index.palette.names) if row[each] == "1"}
        assert tagged == classes - {IGNORE}
    assert len(rows) == 2 * sum(split != "test" for split in miniature.splits.values())


@pytest.mark.parametrize("name", ["openearthmap", "isaid"])
def test_layouts_without_any_archive(name: str, tmp_path: Path) -> None:
    """The folder of the regions itself; images and masks of iSAID side by side, as its kit wants them."""
    miniature = SETS[name]()
    for archive, members in miniature.files.items():
        above = Path(archive).parts[0] if name == "isaid" else ""
        files = {str(Path(above, file)): content for file, content in members.items()}
        archives.pack(files, tmp_path / "raw", None, "loose")
    raw = tmp_path / "raw" / ("OpenEarthMap_wo_xBD" if name == "openearthmap" else "")
    index = prepare_scenes(archives.layout(name), raw, tmp_path / "scenes")
    assert {scene.name: scene.split for scene in index.scenes} == miniature.splits
    assert {name: count for name, count in index.class_pixels.items() if count} == miniature.pixels


@pytest.mark.parametrize("renamed", ["{} (1).zip", "{} (12).ZIP"])
@pytest.mark.parametrize("all_of_them", [True, False])
@pytest.mark.parametrize("name", SETS)
def test_archives_that_a_browser_renamed_are_named(
    name: str, renamed: str, tmp_path: Path, *, all_of_them: bool
) -> None:
    files = SETS[name]().files
    for archive in list(files)[None if all_of_them else -1 :]:
        path = Path(archive)
        files[str(path.with_name(renamed.format(path.stem)))] = files.pop(archive)
    place(files, tmp_path, "zip")
    with pytest.raises(UserError, match=rf"lacks .*\.zip: rename {tmp_path}/.* \(1.* to [\w]+\.zip$"):
        prepare_scenes(archives.layout(name), tmp_path, tmp_path / "scenes")


@pytest.mark.parametrize("name", SETS)
def test_masks_that_are_not_there_may_be_done_without(name: str, tmp_path: Path) -> None:
    marks = ("masks_png", "labels/", "MSK_", "instance")
    files = {
        archive: {
            member: content for member, content in members.items() if not any(m in member for m in marks)
        }
        for archive, members in SETS[name]().files.items()
    }
    place(files, tmp_path, "zip")
    with pytest.raises(UserError, match=r"null dataset\.tags=TABLE to train without masks"):
        prepare_scenes(archives.layout(name), tmp_path, tmp_path / "scenes")
    index = prepare_scenes(archives.layout(name, "dataset.reference=null"), tmp_path, tmp_path / "scenes")
    assert all(scene.mask is None for scene in index.scenes)


def test_images_of_xbd_can_be_asked_for(tmp_path: Path) -> None:
    place(openearthmap().files, tmp_path, "zip")
    layout = archives.layout("openearthmap", "dataset.split.absent=refuse")
    with pytest.raises(UserError, match=r"1 of 3 scenes have no image in .*OpenEarthMap.zip: palu_3"):
        prepare_scenes(layout, tmp_path, tmp_path / "scenes")


@pytest.mark.parametrize(
    ("name", "form"), [("loveda", "zip"), ("loveda", "folder"), ("flair", "zip"), ("isaid", "zip")]
)
def test_images_that_are_missing_beside_their_masks_are_said(
    name: str, form: str, run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images alone say which scenes there are: an image that was not copied would never be missed."""
    lost = {"loveda": "0", "flair": "000826", "isaid": "P0005"}[name]
    files = {
        archive: {
            member: content
            for member, content in members.items()
            if Path(member).stem.removeprefix("IMG_") != lost or "masks" in member
        }
        for archive, members in SETS[name]().files.items()
    }
    place(files, tmp_path / "raw", form)
    run_here(f"dataset={name}", "dataset.raw=raw", "stage=prepare")
    printed = " ".join(capsys.readouterr().out.split())
    assert f"reference masks without an image: 1, the first is of {lost}; they are skipped" in printed


def test_a_folder_of_a_split_that_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its images would train in place of choosing between models."""
    place(flair().files, tmp_path, "zip")
    layout = archives.layout("flair", "dataset.split.folders.val=[D004_2021,D999_2020]")
    resolve_split(layout.split, tmp_path, RawFiles(layout.image, tmp_path))
    printed = " ".join(capsys.readouterr().out.split())
    assert "there is no folder D999_2020: check for another version" in printed
    with pytest.raises(UserError, match=r"both define the split: type dataset.split.folders=null"):
        archives.layout("flair", "dataset.split.numeric=[1,1,1]")


def test_infrared_of_flair_is_its_fourth_band(tmp_path: Path) -> None:
    place(flair().files, tmp_path, "zip")
    layout = archives.layout("flair", "dataset.bands=irrg")
    reader = SceneReader(prepare_scenes(layout, tmp_path, tmp_path / "scenes"))
    pixels = archives.image(1, 5, 2, 4)
    assert np.array_equal(reader.image(Tile("000001", 0, 0, 2, 4)), pixels[..., [3, 0, 1]])


# What these layouts need of the reader


def test_one_of_several_archives_that_is_missing_is_named(tmp_path: Path) -> None:
    archives.pack({"a_1.tif": b""}, tmp_path, "one.zip")
    with pytest.raises(UserError, match=r"holds one.zip, and lacks .*two.zip or .*two/: add it"):
        RawFiles(RawSource("a_{scene}.tif", ("one.zip", "two.zip")), tmp_path)


@pytest.fixture
def towns(tmp_path: Path) -> RawFiles:
    files: dict[str, Any] = {f"{part}/{area}/{part}{area}.tif": b"" for part in "AB" for area in "xyz"}
    archives.pack(files, tmp_path, "all.zip")
    return RawFiles(RawSource("{scene}.tif", "all.zip"), tmp_path)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"train": ("A",), "test": ("B",)}, "Ax Ay Az | Bx By Bz"),
        ({"train": ("A", "B"), "test": ("x",)}, "Ay Az By Bz | Ax Bx"),
        ({"train": ("A/y",), "test": ("B/y",)}, "Ay | By"),
        ({"train": ("all",), "test": ("B",)}, "Ax Ay Az | Bx By Bz"),
    ],
)
def test_the_innermost_folder_named_says_the_split(
    towns: RawFiles, tmp_path: Path, folders: dict[str, tuple[str, ...]], expected: str
) -> None:
    scenes = resolve_split(Split(folders=folders), tmp_path, towns)
    lists = [" ".join(name for name, part in scenes if part == split) for split in ("train", "test")]
    assert " | ".join(lists) == expected


def test_folders_that_are_not_there_are_named(towns: RawFiles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no scene of .*all.zip is in C, D"):
        resolve_split(Split(folders={"train": ("C",), "test": ("D",)}), tmp_path, towns)
