import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from ome.config.raw_data import raw_layout
from ome.data.archives import RawFiles, find_files
from ome.data.raw import layout_from_facts
from ome.data.raw_file import MAX_MEMBER, check_expansion
from ome.data.raw_source import ANY_IMAGE, RawSource, image_name
from ome.data.raw_split import Split, resolve_split, split_from_facts
from ome.errors import UserError
from ome.stages import prepare
from ome.tagging.items import find_images, windows_of
from tests import archives
from tests.conftest import compose_config

SOURCE = RawSource("top/area_{scene}.tif", "ortho.zip")
FILES = {"area_1.tif": b"one", "area_2_10.tif": b"two", "readme.txt": b""}


@pytest.mark.parametrize(
    ("form", "inside"),
    [("zip", ""), ("zip", "a/b/"), ("folder", ""), ("folder", "a/"), ("loose", "top/"), ("loose", "")],
)
def test_files_are_found_in_an_archive_its_folder_or_loose(
    tmp_path: Path, form: archives.Form, inside: str
) -> None:
    archives.pack(FILES, tmp_path, "ortho.zip", form, inside)
    files = RawFiles(SOURCE, tmp_path)
    assert files.scenes() == ["1", "2_10"]
    file = files.find("2_10")
    assert file is not None
    assert file.read_bytes() == b"two"
    assert files.find("10") is None


def test_the_archive_comes_before_its_folder(tmp_path: Path) -> None:
    archives.pack({"area_1.tif": b"loose"}, tmp_path, "ortho.zip", "folder")
    archives.pack({"area_1.tif": b"packed"}, tmp_path, "ortho.zip")
    file = RawFiles(SOURCE, tmp_path).find("1")
    assert file is not None
    assert file.read_bytes() == b"packed"


def test_a_missing_archive_names_every_place_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_files({"rgb": SOURCE}, "rgb", tmp_path, "dataset.bands")
    message = str(caught.value)
    for part in ("ortho.zip", "ortho/", "top/area_{scene}.tif", "dataset.raw="):
        assert part in message
    assert "\n" not in message


def test_two_files_of_one_scene_are_ambiguous(tmp_path: Path) -> None:
    archives.pack({"a/area_1.tif": b"", "b/area_1.tif": b""}, tmp_path, "ortho.zip")
    with pytest.raises(UserError, match=r"2 files for scene 1: a/area_1.tif and b/area_1.tif"):
        RawFiles(SOURCE, tmp_path).find("1")


def test_one_name_in_two_folders_is_told_apart_by_the_folder_of_the_pattern(tmp_path: Path) -> None:
    files = {"v1/images/1.tif": b"image", "v1/masks/1.tif": b"mask"}
    archives.pack(files, tmp_path, "both.zip")
    for folder, content in (("images", b"image"), ("masks", b"mask")):
        file = RawFiles(RawSource(f"{folder}/{{scene}}.tif", "both.zip"), tmp_path).find("1")
        assert file is not None
        assert file.read_bytes() == content


def test_any_image_has_one_of_the_known_suffixes(tmp_path: Path) -> None:
    names = ["a.JPG", "b.1.tiff", "c d.png", ".hidden.png", "notes.txt", "b.1.tiff.aux.xml"]
    archives.pack(dict.fromkeys(names, b""), tmp_path, None, "loose")
    files = RawFiles(ANY_IMAGE, tmp_path)
    assert files.scenes() == ["a", "b.1", "c d"]
    assert [image_name(value) for value in ("a.JPG", "a", "b.1", "b.1.tiff")] == ["a", "a", "b.1", "b.1"]


def test_resource_forks_are_no_second_file(tmp_path: Path) -> None:
    archives.pack({"a/area_1.tif": b"x", "__MACOSX/a/area_1.tif": b""}, tmp_path, "ortho.zip")
    assert RawFiles(SOURCE, tmp_path).find("1").name == "a/area_1.tif"


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_a_truncated_archive_is_one_clear_line(tmp_path: Path, keep: float) -> None:
    archives.pack({"area_1.tif": archives.image(0).tobytes()}, tmp_path, "ortho.zip")
    path = tmp_path / "ortho.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UserError, match=r"ortho.zip is damaged .*download it again"):
        RawFiles(SOURCE, tmp_path)


def test_damage_inside_an_archive_is_noticed(tmp_path: Path) -> None:
    archives.pack({"area_1.tif": archives.image(0).tobytes()}, tmp_path, "ortho.zip")
    path = tmp_path / "ortho.zip"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"ortho.zip is damaged"):
        RawFiles(SOURCE, tmp_path).find("1").read_bytes()


def test_an_encrypted_archive_asks_to_unpack_by_hand(tmp_path: Path) -> None:
    archives.pack({"area_1.tif": b"secret"}, tmp_path, "ortho.zip")
    path = tmp_path / "ortho.zip"
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"unpack it by hand to .*ortho/"):
        RawFiles(SOURCE, tmp_path).find("1").read_bytes()


def test_a_member_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    archives.pack({"area_1.tif": bytes(1000)}, tmp_path, "ortho.zip")
    path = tmp_path / "ortho.zip"
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02") + 24
    content[at : at + 4] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"area_1.tif unpacks from \d+ to 3221225472 bytes"):
        RawFiles(SOURCE, tmp_path)


@pytest.mark.parametrize(
    ("size", "packed", "fine"),
    [(MAX_MEMBER + 1, MAX_MEMBER, False), (144 << 20, 1 << 17, True), (1 << 30, 1 << 28, True)],
)
def test_expansion_limits(size: int, packed: int, fine: bool) -> None:
    member = zipfile.ZipInfo("area_1.tif")
    member.file_size, member.compress_size = size, packed
    if fine:
        check_expansion(Path("ortho.zip"), member)
    else:
        with pytest.raises(UserError, match="are refused"):
            check_expansion(Path("ortho.zip"), member)


def huge(path: Path) -> None:
    """A GeoTIFF of 40000 x 40000 pixels, of which one block is written."""
    shape = {"count": 3, "height": 40000, "width": 40000, "dtype": "uint8", "photometric": "RGB"}
    blocks = {"tiled": True, "blockxsize": 1024, "blockysize": 1024, "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", **shape, **blocks) as raster:
        raster.write(np.full((3, 64, 64), 9, np.uint8), window=Window(30000, 20000, 64, 64))


def test_a_large_geotiff_is_read_by_windows(tmp_path: Path) -> None:
    huge(tmp_path / "city.tif")
    (city,) = find_images(tmp_path)
    with city.file.open() as raster:
        assert (raster.read(20000, 30000, 64, 64) == 9).all()
    assert len(windows_of([city], 256)) == 157**2
    archives.pack({"city.tif": (tmp_path / "city.tif").read_bytes()}, tmp_path, "ortho.zip")
    member = RawFiles(RawSource("{scene}.tif", "ortho.zip"), tmp_path).find("city")
    assert member is not None
    message = r"city.tif is 40000 x 40000 pixels, too large to be read at once: unpack the archive$"
    with pytest.raises(UserError, match=message):
        member.open()


@pytest.mark.parametrize(("driver", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("PNG", "tif")])
def test_what_is_not_read_by_windows_has_a_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, suffix: str
) -> None:
    (tmp_path / f"city.{suffix}").write_bytes(archives.raster(archives.image(1, 3, 40, 60), driver))
    (city,) = find_images(tmp_path)
    city.file.open().close()
    monkeypatch.setattr("ome.data.raw_file.MAX_MEMBER", 40 * 60 * 3 - 1)
    with pytest.raises(UserError, match=r"is 60 x 40 pixels, too large .*: gdal_translate -co TILED=YES IN"):
        city.file.open()


# Facts


@pytest.mark.parametrize(
    ("dataset", "train", "val", "test"),
    [("potsdam", 23, 0, 14), ("vaihingen", 16, 0, 17), ("synthetic", 6, 0, 2), ("landcoverai", 26, 6, 9)],
)
def test_published_splits(dataset: str, train: int, val: int, test: int, tmp_path: Path) -> None:
    archives.pack({"area_1.tif": b""}, tmp_path, "ortho.zip")
    split = archives.layout(dataset).split
    scenes = resolve_split(split, tmp_path, RawFiles(SOURCE, tmp_path))
    assert [sum(part == name for _, part in scenes) for name in ("train", "val", "test")] == [
        train,
        val,
        test,
    ]
    assert "7_10" not in dict(scenes)


def test_potsdam_scene_names_are_no_numbers() -> None:
    assert archives.layout("potsdam").split.train[:2] == ("2_10", "2_11")


@pytest.mark.parametrize(
    ("dataset", "classes", "ignored"),
    [
        ("potsdam", archives.ISPRS, archives.ISPRS_IGNORED),
        ("vaihingen", archives.ISPRS, archives.ISPRS_IGNORED),
        ("deepglobe", archives.DEEPGLOBE, archives.DEEPGLOBE_IGNORED),
    ],
)
def test_published_colours(
    dataset: str, classes: list[tuple[int, int, int]], ignored: list[tuple[int, int, int]]
) -> None:
    palette = archives.layout(dataset).palette
    assert list(palette.classes.values()) == classes
    assert list(palette.ignored.values()) == ignored


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.bands=nir", "dataset.bands=nir: potsdam has irrg, rgb, rgbir"),
        ("dataset.reference=half", "dataset.reference=half: potsdam has full, eroded"),
        ("dataset.classes.car=[1,2]", "malformed"),
        ("dataset.classes.car=[0,0,255]", "car and building have the same colour"),
        ("dataset.images.irrg.pattern=scene.tif", "must contain {scene} exactly once"),
    ],
)
def test_wrong_facts_are_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        archives.layout("potsdam", override)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ({"bus": 9}, "bus is neither in dataset.classes nor in dataset.ignored"),
        ({"building": 1, "woodland": 2, "road": 4}, "dataset.indices lacks water"),
        ({"building": 1, "woodland": 2, "road": 4, "water": 4}, "a different value from 0 to 255"),
        ({"building": 1, "woodland": 2, "road": 4, "water": 256}, "a different value from 0 to 255"),
    ],
)
def test_indices_that_do_not_fit_are_refused(indices: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        layout_from_facts(archives.facts("landcoverai") | {"indices": indices})


def test_a_missing_fact_is_named() -> None:
    facts = archives.facts("potsdam")
    del facts["images"]
    with pytest.raises(UserError, match="lacks the key 'images'"):
        layout_from_facts(facts)


# Splits


@pytest.fixture
def numbered(tmp_path: Path) -> RawFiles:
    archives.pack(
        {f"train/{scene}_sat.jpg": b"" for scene in (10233, 119, 855, 2774, 1000000)}, tmp_path, None, "loose"
    )
    return RawFiles(RawSource("train/{scene}_sat.jpg"), tmp_path)


def test_scenes_sorted_as_numbers_are_split_first_next_last(numbered: RawFiles, tmp_path: Path) -> None:
    scenes = resolve_split(Split(numeric=(2, 1, 1)), tmp_path, numbered)
    assert scenes == [("119", "train"), ("855", "train"), ("2774", "val"), ("1000000", "test")]


def test_deepglobe_asks_for_all_803_scenes(numbered: RawFiles, tmp_path: Path) -> None:
    assert archives.layout("deepglobe").split == Split(numeric=(563, 120, 120))
    with pytest.raises(UserError, match=r"needs 803 scenes and .* has 5"):
        resolve_split(archives.layout("deepglobe").split, tmp_path, numbered)


def test_names_in_lists_may_have_blanks_and_decomposed_accents(tmp_path: Path) -> None:
    names = ["north 1", "s\u00fcd"]
    archives.pack({f"area_{name}.tif": b"" for name in names}, tmp_path, "ortho.zip")
    (tmp_path / "train.txt").write_text("\nnorth 1\r\n area_su\u0308d.tif \n", encoding="utf-8")
    images = RawFiles(SOURCE, tmp_path)
    listed = {"train": ["north 1"], "test": ["su\u0308d"]}
    assert [name for name, _ in resolve_split(split_from_facts(listed), tmp_path, images)] == names
    split = Split(train=Path("train.txt"))
    assert [name for name, _ in resolve_split(split, tmp_path, images)] == names


def test_list_files_win_over_counts_and_are_found_in_the_raw_folder(
    numbered: RawFiles, tmp_path: Path
) -> None:
    (tmp_path / "train.txt").write_text("119\n2774\n\n")
    (tmp_path / "test.txt").write_text("855")
    split = archives.layout(
        "deepglobe", "dataset.split.train=train.txt", f"dataset.split.test={tmp_path}/test.txt"
    ).split
    expected = [("119", "train"), ("2774", "train"), ("855", "test")]
    assert resolve_split(split, tmp_path, numbered) == expected
    (tmp_path / "train.txt").write_text("119\n2774\n", encoding="utf-8-sig")
    assert resolve_split(split, tmp_path, numbered) == expected
    (tmp_path / "train.txt").write_text("119\n2774\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"train\.txt is not text in UTF-8"):
        resolve_split(split, tmp_path, numbered)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split(), "dataset.split.train is empty"),
        (Split(train=("1", "1")), "scene 1 is listed twice"),
        (Split(train=("1",), test=("1",)), "dataset.split.train and dataset.split.test"),
        (Split(train=("../1",)), "the scene '../1' has '/' in it"),
        (Split(train=Path("none.txt")), "the list none.txt or .*none.txt does not exist"),
        (Split(train=("1",), test=Path("empty.txt")), "empty.txt is empty"),
        (Split(numeric=(-1, 1, 1)), "negative"),
        (Split(numeric=(0, 1, 1)), "dataset.split.train is empty"),
    ],
)
def test_bad_splits(numbered: RawFiles, tmp_path: Path, split: Split, message: str) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=message):
        resolve_split(split, tmp_path, numbered)


def test_counting_needs_numbers(tmp_path: Path) -> None:
    archives.pack({"area_2_10.tif": b""}, tmp_path, "ortho.zip")
    with pytest.raises(UserError, match=r"2_10 in .* is not a number"):
        resolve_split(Split(numeric=(1, 0, 0)), tmp_path, RawFiles(SOURCE, tmp_path))


@pytest.mark.parametrize("key", ["split.train", "split"])
def test_facts_may_refer_to_the_raw_folder(tmp_path: Path, key: str) -> None:
    value = "${dataset.raw}/train.txt" if key == "split.train" else "{train: '${dataset.raw}/train.txt'}"
    config = compose_config(["dataset=deepglobe", f"dataset.raw={tmp_path}", f"dataset.{key}={value}"])
    assert raw_layout(config).split.train == tmp_path / "train.txt"


def test_the_range_of_16_bits_belongs_to_a_layout() -> None:
    """A segmenter's card records it, so that scenes must be prepared with it."""
    assert archives.layout("deepglobe", "+dataset.range=[0,4095]").limits == (0, 4095)
    with pytest.raises(UserError, match=r"^dataset\.range=\[9, 3\]: give the values that become 0 and 255"):
        archives.layout("deepglobe", "+dataset.range=[9,3]")


@pytest.mark.parametrize("experiment", ["deepglobe_small", "deepglobe_ablation"])
def test_an_experiment_for_another_dataset_is_one_line(tmp_path: Path, experiment: str) -> None:
    config = compose_config([f"experiment={experiment}", "dataset=custom", f"dataset.raw={tmp_path}"])
    with pytest.raises(
        UserError, match=r"^dataset\.split=.* does not fit the dataset custom, whose table of tags"
    ):
        raw_layout(config)


@pytest.mark.parametrize("listed", ["train.txt", "raw/train.txt"])
def test_scenes_are_those_of_another_list_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    Path(listed).write_text("1\n2\n")
    config = compose_config(["dataset=vaihingen", "dataset.raw=raw", f"dataset.split.train={listed}"])
    before = prepare.sources(config)
    assert prepare.sources(config) == before
    Path(listed).write_text("1\n2\n4\n")
    assert prepare.sources(config) != before


WORLD = b"0.5\n0\n0\n-0.5\n500000.25\n5399999.75\n"
NODATA = b'<PAMDataset><PAMRasterBand band="%d"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'


def mask_file(folder: Path) -> bytes:
    """A GeoTIFF for `.msk`, whose upper half is invalid."""
    path, valid = folder / "masked.tif", np.ones((40, 56), dtype=bool)
    valid[:20] = False
    path.write_bytes(archives.raster(archives.image(0)))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(valid)
    return path.with_name("masked.tif.msk").read_bytes()


@pytest.mark.parametrize("inside", ["", "a/b/"])
@pytest.mark.parametrize(
    ("image", "sidecar", "valid", "nodata", "placed"),
    [
        ("a.tif", "a.tif.msk", 0.5, None, False),
        ("a.tif", "a.tif.MSK", 0.5, None, False),
        ("a.png", "a.png.msk", 0.5, None, False),
        ("a.tif", "a.tif.aux.xml", 1, 7, False),
        ("a.jpg", "a.jpg.aux.xml", 1, 7, False),
        *(
            (f"a.{kind}", f"a.{end}", 1, None, True)
            for kind, end in zip(
                ("tif", "TIF", "tiff", "tiff", "jpg", "jpeg", "JPEG", "jpeg", "png", "png"),
                ("tfw", "TFW", "tfw", "tiffw", "jgw", "jgw", "JGW", "wld", "pgw", "WLD"),
                strict=True,
            )
        ),
    ],
)
def test_sidecars_in_an_archive_are_those_of_the_folder(
    tmp_path: Path, inside: str, image: str, sidecar: str, valid: float, nodata: float | None, *, placed: bool
) -> None:
    driver = {"t": "GTiff", "p": "PNG", "j": "JPEG"}[Path(image).suffix[1].lower()]
    content = archives.raster(archives.image(0), driver)
    beside = {"k": mask_file(tmp_path), "l": NODATA % 1}.get(sidecar[-1].lower(), WORLD)
    for form in ("zip", "folder"):
        archives.pack({image: content, sidecar: beside}, tmp_path / form, "x.zip", form, inside)
        file = RawFiles(RawSource("{scene}.*", "x.zip"), tmp_path / form).find("a")
        assert file is not None
        with file.open() as raster:
            if form == "zip" or sidecar != "a.tif.MSK":  # GDAL finds .MSK only where it lists the folder
                assert raster.valid(0, 0, 40, 56).mean() == valid
            assert raster.nodata[0] == nodata
            assert raster.grid.transform.is_identity != placed


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (
            "a.tif.msk",
            b"<VRTDataset/>",
            r"a.tif.msk, a sidecar of .*x.zip:a.tif, is damaged or not a GeoTIFF",
        ),
        (
            "a.tif.aux.xml",
            (
                b'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">b.tif</MDI></Metadata>'
                b"</PAMDataset>"
            ),
            r"x.zip:a.tif or its .aux.xml takes its overviews from 'b.tif'",
        ),
        ("a.tfw", b"1 2 3", r"x.zip:a.tfw is not a world file"),
    ],
)
def test_sidecars_in_an_archive_are_checked(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    archives.pack({"a.tif": archives.raster(archives.image(0)), name: content}, tmp_path, "x.zip")
    file = RawFiles(RawSource("{scene}.*", "x.zip"), tmp_path).find("a")
    assert file is not None
    with pytest.raises(UserError, match=line):
        file.open()


def test_another_sidecar_in_an_archive_is_another_file(tmp_path: Path) -> None:
    stamps = []
    for sidecar in (WORLD, WORLD.replace(b"0.5", b"0.6"), None):
        beside = {} if sidecar is None else {"a.tfw": sidecar}
        archives.pack({"a.tif": archives.raster(archives.image(0)), **beside}, tmp_path, "x.zip")
        file = RawFiles(RawSource("{scene}.*", "x.zip"), tmp_path).find("a")
        assert file is not None
        stamps.append(file.fingerprint)
    assert len(set(stamps)) == 3
