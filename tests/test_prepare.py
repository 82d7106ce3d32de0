import io
import multiprocessing
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from ome.data.palette import Palette
from ome.data.prepare import prepare_scenes
from ome.data.raw import RawLayout, layout_from_facts
from ome.data.raw_split import Split
from ome.data.scene_index import SceneIndex
from ome.data.scenes import MAX_OPEN, SceneReader
from ome.data.tiles import Tile, tile_scene
from ome.errors import UserError
from ome.ignore import IGNORE
from tests import archives

UTM = {"crs": "EPSG:32633", "transform": Affine(0.05, 0, 366_676, 0, -0.05, 5_808_142)}


def potsdam(
    raw: Path, bands: str = "rgb", reference: str = "full", form: archives.Form = "zip", inside: str = ""
) -> tuple[RawLayout, dict[str, archives.Pixels], dict[str, archives.Pixels]]:
    """Two small Potsdam scenes: layout, images and masks by scene."""
    archive, suffix = {
        "irrg": ("3_Ortho_IRRG.zip", "IRRG"),
        "rgb": ("2_Ortho_RGB.zip", "RGB"),
        "rgbir": ("4_Ortho_RGBIR.zip", "RGBIR"),
    }[bands]
    labels, ending = {
        "full": ("5_Labels_all.zip", "label"),
        "eroded": ("5_Labels_all_noBoundary.zip", "label_noBoundary"),
    }[reference]
    images, masks, files, painted = {}, {}, {}, {}
    for number, scene in enumerate(("2_10", "5_15")):
        images[scene] = archives.image(number, bands=4 if bands == "rgbir" else 3)
        files[f"top_potsdam_{scene}_{suffix}.tif"] = archives.raster(images[scene], **UTM)
        colours, masks[scene] = archives.reference(number, archives.ISPRS, archives.ISPRS_IGNORED)
        painted[f"top_potsdam_{scene}_{ending}.tif"] = archives.raster(colours)
    archives.pack(files, raw, archive, form, inside)
    archives.pack(painted, raw, labels, form, inside)
    overrides = ('dataset.split.train=["2_10"]', 'dataset.split.test=["5_15"]')
    return (
        archives.layout("potsdam", f"dataset.bands={bands}", f"dataset.reference={reference}", *overrides),
        images,
        masks,
    )


def whole(scene: str, height: int = 40, width: int = 56) -> Tile:
    return Tile(scene, 0, 0, height, width)


# Every dataset and variant


@pytest.mark.parametrize("reference", ["full", "eroded"])
@pytest.mark.parametrize(
    ("bands", "channels", "place"),
    [
        ("irrg", [1, 2, 3], ("zip", "")),
        ("rgb", [1, 2, 3], ("zip", "2_Ortho_RGB/")),
        ("rgbir", [4, 1, 2], ("folder", "")),
        ("rgb", [1, 2, 3], ("loose", "")),
    ],
)
def test_potsdam(
    tmp_path: Path, bands: str, channels: list[int], place: tuple[archives.Form, str], reference: str
) -> None:
    layout, images, masks = potsdam(tmp_path / "raw", bands, reference, *place)
    index = prepare_scenes(layout, tmp_path / "raw", tmp_path / "scenes")
    assert SceneIndex.read(tmp_path / "scenes") == index
    assert [(scene.name, scene.split) for scene in index.scenes] == [("2_10", "train"), ("5_15", "test")]
    reader = SceneReader(index)
    for scene in ("2_10", "5_15"):
        expected = images[scene][..., [channel - 1 for channel in channels]]
        assert np.array_equal(reader.image(whole(scene)), expected)
        assert np.array_equal(reader.mask(whole(scene)), masks[scene])
    assert index.scene("2_10").class_pixels == tuple(int((masks["2_10"] == c).sum()) for c in range(5))
    assert index.unknown.pixels == 0


@pytest.mark.parametrize("reference", ["full", "eroded"])
def test_vaihingen(tmp_path: Path, reference: str) -> None:
    image = archives.image(1)
    colours, mask = archives.reference(2, archives.ISPRS, archives.ISPRS_IGNORED)
    name = "ISPRS_semantic_labeling_Vaihingen"
    archives.pack(
        {"top_mosaic_09cm_area1.tif": archives.raster(image)}, tmp_path, f"{name}.zip", inside="top/"
    )
    labels, file = {
        "full": (f"{name}_ground_truth_COMPLETE.zip", "top_mosaic_09cm_area1.tif"),
        "eroded": (f"{name}_ground_truth_eroded_COMPLETE.zip", "top_mosaic_09cm_area1_noBoundary.tif"),
    }[reference]
    archives.pack({file: archives.raster(colours)}, tmp_path, labels)
    layout = archives.layout(
        "vaihingen", f"dataset.reference={reference}", "dataset.split.train=[1]", "dataset.split.test=[]"
    )
    reader = SceneReader(prepare_scenes(layout, tmp_path, tmp_path / "scenes"))
    assert np.array_equal(reader.image(whole("1")), image)
    assert np.array_equal(reader.mask(whole("1")), mask)


def test_deepglobe(tmp_path: Path) -> None:
    colours, mask = archives.reference(2, archives.DEEPGLOBE, archives.DEEPGLOBE_IGNORED)
    smooth = np.full((40, 56, 3), (90, 120, 60), dtype=np.uint8)
    files = {}
    for scene in ("10233", "119", "102339"):
        files[f"{scene}_sat.jpg"] = archives.raster(smooth, "JPEG")
        files[f"{scene}_mask.png"] = archives.raster(colours, "PNG")
    archives.pack(files, tmp_path, None, "loose", "train/")
    layout = archives.layout("deepglobe", "dataset.split.numeric=[1,1,1]")
    index = prepare_scenes(layout, tmp_path, tmp_path / "scenes")
    # Ids that agree in their first digits stay apart.
    assert [(scene.name, scene.split) for scene in index.scenes] == [
        ("119", "train"),
        ("10233", "val"),
        ("102339", "test"),
    ]
    reader = SceneReader(index)
    assert np.array_equal(reader.mask(whole("119")), mask)
    assert np.abs(reader.image(whole("119")).astype(int) - smooth).max() <= 2


POLAND = {"crs": "EPSG:2180", "transform": Affine(0.25, 0, 280_307, 0, -0.25, 394_546)}


def landcoverai(
    raw: Path, form: archives.Form, inside: str = ""
) -> tuple[RawLayout, archives.Pixels, archives.Pixels]:
    """Two small LandCover.ai scenes: layout, and image and indices of the first."""
    image, values = archives.image(1), archives.image(2, bands=1) % 6
    files = {}
    for scene in ("M-33-20-D-c-4-2", "N-34-61-B-a-1-1"):
        files[f"{inside}images/{scene}.tif"] = archives.raster(image, **POLAND)
        files[f"{inside}masks/{scene}.tif"] = archives.raster(values, **POLAND)
        # The published list of tiles lies beside.
        files[f"{inside}train.txt"] = f"{scene}_0\n".encode()
        image, values = 255 - image, 5 - values
    archives.pack(files, raw, "landcover.ai.v1.zip", form)
    overrides = ("dataset.split.train=[N-34-61-B-a-1-1]", "dataset.split.val=[]")
    layout = archives.layout("landcoverai", *overrides, "dataset.split.test=[M-33-20-D-c-4-2]")
    return layout, image, values[..., 0]


@pytest.mark.parametrize(
    ("form", "inside"), [("zip", ""), ("zip", "landcover.ai.v1/"), ("folder", ""), ("loose", "")]
)
def test_landcoverai(tmp_path: Path, form: archives.Form, inside: str) -> None:
    layout, image, values = landcoverai(tmp_path / "raw", form, inside)
    index = prepare_scenes(layout, tmp_path / "raw", tmp_path / "scenes")
    assert SceneIndex.read(tmp_path / "scenes") == index
    assert index.palette.names == ("building", "woodland", "water", "road")
    reader = SceneReader(index)
    tile = whole("M-33-20-D-c-4-2")
    assert np.array_equal(reader.image(tile), image)
    # 0 is "other", ignored and known; 5 stands for nothing.
    expected = np.array([IGNORE, 0, 1, 2, 3, IGNORE], dtype=np.uint8)[values]
    assert np.array_equal(reader.mask(tile), expected)
    assert index.scene(tile.scene).unknown.counts == (((5, 5, 5), int((values == 5).sum())),)
    with rasterio.open(tmp_path / "scenes/masks" / f"{tile.scene}.tif") as mask:
        assert mask.crs == POLAND["crs"]
        assert mask.colormap(1)[0] == (213, 94, 0, 255)


def test_the_quirk_of_the_published_code_holds_for_indices_too(tmp_path: Path) -> None:
    layout, _, values = landcoverai(tmp_path, "loose")
    quirky = replace(layout, palette=replace(layout.palette, unknown_as_first=True))
    mask = SceneReader(prepare_scenes(quirky, tmp_path, tmp_path / "scenes")).mask(whole("M-33-20-D-c-4-2"))
    assert np.array_equal(mask, np.array([IGNORE, 0, 1, 2, 3, 0], dtype=np.uint8)[values])


def test_a_colour_table_does_not_change_what_indices_mean(tmp_path: Path) -> None:
    layout, _, _ = landcoverai(tmp_path, "loose")
    values = archives.image(3, bands=1)[..., 0] % 5
    indexed = Image.fromarray(values, mode="P")
    indexed.putpalette([4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0])
    indexed.save(tmp_path / "masks/M-33-20-D-c-4-2.tif")
    mask = SceneReader(prepare_scenes(layout, tmp_path, tmp_path / "scenes")).mask(whole("M-33-20-D-c-4-2"))
    assert np.array_equal(mask, np.array([IGNORE, 0, 1, 2, 3], dtype=np.uint8)[values])


def test_a_mask_in_colours_is_no_mask_of_indices(tmp_path: Path) -> None:
    layout, _, _ = landcoverai(tmp_path, "loose")
    (tmp_path / "masks/M-33-20-D-c-4-2.tif").write_bytes(archives.raster(archives.image(0)))
    with pytest.raises(UserError, match=r"D-c-4-2.tif has 3 bands, and a mask of class indices has one"):
        prepare_scenes(layout, tmp_path, tmp_path / "scenes")


def test_a_mask_of_one_band_is_read_by_its_colour_table_or_as_grey(tmp_path: Path) -> None:
    classes = np.arange(40 * 56, dtype=np.uint8).reshape(40, 56, 1) % 3
    indexed = Image.fromarray(classes[..., 0], mode="P")
    indexed.putpalette([9, 9, 9, 0, 0, 255, 255, 255, 255])
    packed = io.BytesIO()
    indexed.save(packed, "PNG")
    archives.pack(
        {
            "i_1.tif": archives.raster(archives.image(0)),
            "m_1.png": packed.getvalue(),
            "g_1.png": archives.raster(classes, "PNG"),
        },
        tmp_path,
        None,
        "loose",
    )
    facts = archives.facts("potsdam") | {
        "bands": "rgb",
        "split": {"train": ["1"]},
        "images": {"rgb": {"pattern": "i_{scene}.tif"}},
    }
    table = layout_from_facts(facts | {"masks": {"full": {"pattern": "m_{scene}.png"}}})
    mask = SceneReader(prepare_scenes(table, tmp_path, tmp_path / "table")).mask(whole("1"))
    assert np.array_equal(mask, np.array([IGNORE, 1, 0], dtype=np.uint8)[classes[..., 0]])
    grey = replace(
        layout_from_facts(facts | {"masks": {"full": {"pattern": "g_{scene}.png"}}}),
        palette=Palette({"a": (1, 1, 1), "b": (2, 2, 2)}, {"no": (0, 0, 0)}),
    )
    mask = SceneReader(prepare_scenes(grey, tmp_path, tmp_path / "grey")).mask(whole("1"))
    assert np.array_equal(mask, np.array([IGNORE, 0, 1], dtype=np.uint8)[classes[..., 0]])


def test_a_dataset_without_masks(tmp_path: Path) -> None:
    layout, images, _ = potsdam(tmp_path)
    index = prepare_scenes(replace(layout, masks={}), tmp_path, tmp_path / "scenes")
    assert [scene.mask for scene in index.scenes] == [None, None]
    reader = SceneReader(index)
    assert not reader.has_mask("2_10")
    assert np.array_equal(reader.image(whole("2_10")), images["2_10"])
    with pytest.raises(UserError, match=r"2_10 in .* has no reference mask"):
        reader.mask(whole("2_10"))


# What is written


def test_scenes_are_plain_tiled_geotiffs_with_their_georeference(tmp_path: Path) -> None:
    layout, _, _ = potsdam(tmp_path)
    prepare_scenes(layout, tmp_path, tmp_path / "scenes")
    with (
        rasterio.open(tmp_path / "scenes/images/2_10.tif") as image,
        rasterio.open(tmp_path / "scenes/masks/2_10.tif") as mask,
    ):
        assert image.crs == mask.crs == UTM["crs"]
        assert image.transform == mask.transform == UTM["transform"]
        assert image.block_shapes == [(256, 256)] * 3
        assert image.compression is None
        assert image.interleaving.name == "pixel"
        assert mask.nodata == IGNORE
        assert mask.compression.name == "deflate"
        assert mask.colormap(1)[1][:3] == (0, 0, 255)


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_a_world_file_beside_the_image_counts(tmp_path: Path, form: archives.Form) -> None:
    layout, images, _ = potsdam(tmp_path)
    files = {f"top_potsdam_{scene}_RGB.tif": archives.raster(image) for scene, image in images.items()}
    # The last two numbers are the centre of the first pixel.
    world = {"top_potsdam_2_10_RGB.tfw": b"0.05\n0\n0\n-0.05\n366676.025\n5808141.975\n"}
    (tmp_path / "2_Ortho_RGB.zip").unlink()
    archives.pack(files | world, tmp_path, "2_Ortho_RGB.zip", form, "a/")
    prepare_scenes(layout, tmp_path, tmp_path / "scenes")
    with rasterio.open(tmp_path / "scenes/images/2_10.tif") as image:
        assert image.transform.almost_equals(UTM["transform"], 1e-6)
    with rasterio.open(tmp_path / "scenes/images/5_15.tif") as image:
        assert image.transform.is_identity


def test_scenes_taller_than_a_strip_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ome.geo.strips.STRIP", 16)
    layout, images, masks = potsdam(tmp_path)
    reader = SceneReader(prepare_scenes(layout, tmp_path, tmp_path / "scenes"))
    assert np.array_equal(reader.image(whole("2_10")), images["2_10"])
    assert np.array_equal(reader.mask(whole("2_10")), masks["2_10"])


def test_unknown_colours_are_ignored_counted_and_kept_in_the_index(tmp_path: Path) -> None:
    layout, _, _masks = potsdam(tmp_path)
    colours, mask = archives.reference(0, archives.ISPRS, archives.ISPRS_IGNORED)
    colours[0, :3] = (1, 2, 3)
    colours[1, 0] = (254, 255, 255)
    other = archives.raster(archives.reference(1, archives.ISPRS, archives.ISPRS_IGNORED)[0])
    archives.pack(
        {"top_potsdam_2_10_label.tif": archives.raster(colours), "top_potsdam_5_15_label.tif": other},
        tmp_path,
        "5_Labels_all.zip",
    )
    for _ in range(2):  # the second time from the scenes already there
        index = prepare_scenes(layout, tmp_path, tmp_path / "scenes")
        assert index.scene("2_10").unknown.counts == (((1, 2, 3), 3), ((254, 255, 255), 1))
        assert index.scene("2_10").unknown_pixels == 4
        assert index.scene("5_15").unknown_pixels == 0
        assert str(index.unknown) == "1,2,3 (3 px), 254,255,255 (1 px)"
    mask[0, :3] = mask[1, 0] = IGNORE
    assert np.array_equal(SceneReader(index).mask(whole("2_10")), mask)
    assert SceneIndex.read(tmp_path / "scenes").unknown == index.unknown


def test_what_is_done_is_not_done_again_unless_its_source_changed(tmp_path: Path) -> None:
    layout, images, _masks = potsdam(tmp_path)
    folder = tmp_path / "scenes"
    prepare_scenes(layout, tmp_path, folder)
    paths = [folder / kind / f"{scene}.tif" for kind in ("images", "masks") for scene in ("2_10", "5_15")]
    before = [path.stat().st_mtime_ns for path in paths]
    first, damaged = paths[0], paths[1]
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    prepare_scenes(layout, tmp_path, folder)
    assert [path.stat().st_mtime_ns == time for path, time in zip(paths, before, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
    changed, _ = archives.reference(7, archives.ISPRS, archives.ISPRS_IGNORED)
    labels = {f"top_potsdam_{scene}_label.tif": archives.raster(changed) for scene in ("2_10", "5_15")}
    archives.pack(labels, tmp_path, "5_Labels_all.zip")
    reader = SceneReader(prepare_scenes(layout, tmp_path, folder))
    assert first.stat().st_mtime_ns == before[0]
    assert np.array_equal(
        reader.mask(whole("2_10")), archives.reference(7, archives.ISPRS, archives.ISPRS_IGNORED)[1]
    )
    assert np.array_equal(reader.image(whole("5_15")), images["5_15"])


def test_other_classes_make_other_masks(tmp_path: Path) -> None:
    layout, _, masks = potsdam(tmp_path)
    prepare_scenes(layout, tmp_path, tmp_path / "scenes")
    swapped = dict(reversed(layout.palette.classes.items()))
    other = replace(layout, palette=Palette(swapped, layout.palette.ignored))
    mask = SceneReader(prepare_scenes(other, tmp_path, tmp_path / "scenes")).mask(whole("2_10"))
    assert np.array_equal(mask, np.where(masks["2_10"] == IGNORE, IGNORE, 4 - masks["2_10"]))


# Mistakes


def test_missing_scenes_are_named(tmp_path: Path) -> None:
    layout, _, _ = potsdam(tmp_path)
    many = replace(layout, split=Split(train=("2_10", "210", "211", "212", "213", "214", "215")))
    with pytest.raises(
        UserError,
        match=r"6 of 7 scenes have no image in .*2_Ortho_RGB.zip: 210, 211, 212, 213, 214, \.\.\. .*quotes",
    ):
        prepare_scenes(many, tmp_path, tmp_path / "scenes")
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("form", ["zip", "folder", "loose"])
def test_files_of_another_kind_are_named_with_what_to_type(tmp_path: Path, form: archives.Form) -> None:
    potsdam(tmp_path / "raw", "rgb", "eroded", form)
    for settings, message in [
        (
            {},
            r"found none of .*3_Ortho_IRRG.zip, .*; .*RGB.*: type dataset.bands=rgb to use the existing",
        ),
        ({"bands": "rgb"}, r"5_Labels_all.zip, .*: type dataset.reference=eroded to use the existing files"),
    ]:
        layout = archives.layout("potsdam", *(f"dataset.{key}={value}" for key, value in settings.items()))
        with pytest.raises(UserError, match=message):
            prepare_scenes(layout, tmp_path / "raw", tmp_path / "scenes")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is empty: give the folder of the data by dataset.raw=\.\.\."):
        prepare_scenes(layout, tmp_path / "empty", tmp_path / "scenes")


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    layout, _, _ = potsdam(tmp_path)
    colours, _ = archives.reference(0, archives.ISPRS, archives.ISPRS_IGNORED)
    archives.pack({"top_potsdam_2_10_label.tif": archives.raster(colours)}, tmp_path, "5_Labels_all.zip")
    with pytest.raises(
        UserError, match=r"no reference mask in .*5_Labels_all.zip: 5_15 \(e.g. top_potsdam_5_15_label.tif\)"
    ):
        prepare_scenes(layout, tmp_path, tmp_path / "scenes")


def test_a_missing_raw_folder_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist.*dataset.raw="):
        prepare_scenes(archives.layout("potsdam"), tmp_path / "nowhere", tmp_path / "scenes")


def test_a_mask_of_another_size_names_both(tmp_path: Path) -> None:
    layout, _, _ = potsdam(tmp_path)
    colours, _ = archives.reference(0, archives.ISPRS, archives.ISPRS_IGNORED, height=39)
    labels = {f"top_potsdam_{scene}_label.tif": archives.raster(colours) for scene in ("2_10", "5_15")}
    archives.pack(labels, tmp_path, "5_Labels_all.zip")
    with pytest.raises(UserError, match=r"scene 2_10: .*56 x 39 pixels, its image .* 56 x 40"):
        prepare_scenes(layout, tmp_path, tmp_path / "scenes")
    assert not list((tmp_path / "scenes").rglob("masks/*"))


def test_loose_vaihingen_files_of_one_name_are_not_taken_for_image_and_mask(tmp_path: Path) -> None:
    archives.pack({"top_mosaic_09cm_area1.tif": archives.raster(archives.image(0))}, tmp_path, None, "loose")
    layout = archives.layout("vaihingen", "dataset.split.train=[1]", "dataset.split.test=[]")
    with pytest.raises(UserError, match="matches both the image and the mask pattern"):
        prepare_scenes(layout, tmp_path, tmp_path / "scenes")


@pytest.mark.parametrize(
    ("driver", "kind"),
    [("GTiff", "image"), ("JPEG", "image"), ("PNG", "image"), ("PNG", "mask"), ("GTiff", "mask")],
)
@pytest.mark.parametrize("keep", [0.0, 0.6, -400])
def test_a_truncated_raster_is_named_and_leaves_nothing_behind(
    tmp_path: Path, driver: str, kind: str, keep: float
) -> None:
    content = archives.raster(archives.image(0, height=300, width=300), driver)
    content = content[: int(keep * len(content)) if keep >= 0 else keep]
    fine = archives.raster(archives.image(0, height=300, width=300))
    names = {"image": "top_potsdam_2_10_RGB.tif", "mask": "top_potsdam_2_10_label.tif"}
    archives.pack(
        {names["image"]: content if kind == "image" else fine}, tmp_path, "2_Ortho_RGB.zip", "folder"
    )
    archives.pack({names["mask"]: content if kind == "mask" else fine}, tmp_path, "5_Labels_all.zip")
    layout = replace(potsdam(tmp_path / "other")[0], split=Split(train=("2_10",)))
    with pytest.raises(UserError, match=f"{re.escape(names[kind])} is damaged"):
        prepare_scenes(layout, tmp_path, tmp_path / "scenes")
    assert not list((tmp_path / "scenes").rglob(f"{kind}s/*"))
    assert not (tmp_path / "scenes/index.json").exists()


@pytest.mark.parametrize(
    ("kind", "dtype", "message"),
    [
        ("RGB", np.float32, "RGB.tif holds float32 values, only uint8 and uint16 are supported"),
        ("label", np.float32, r"label.tif holds the float32 value [\d.]+: a mask has whole values from 0 to"),
    ],
)
def test_values_of_other_depths_are_refused(
    tmp_path: Path, kind: str, dtype: type[np.generic], message: str
) -> None:
    layout, _, _ = potsdam(tmp_path)
    deep = archives.raster(archives.image(0).astype(dtype) + dtype(0.5))
    archive = {"RGB": "2_Ortho_RGB.zip", "label": "5_Labels_all.zip"}[kind]
    archives.pack({f"top_potsdam_{scene}_{kind}.tif": deep for scene in ("2_10", "5_15")}, tmp_path, archive)
    with pytest.raises(UserError, match=message):
        prepare_scenes(layout, tmp_path, tmp_path / "scenes")


def test_a_choice_of_channels_is_not_kept_for_who_makes_none(tmp_path: Path) -> None:
    """Scenes are shared: a later command without the choice reads the bands that the dataset names."""
    layout, _, _ = potsdam(tmp_path)
    plain, chosen = (
        prepare_scenes(variant, tmp_path, tmp_path / name)
        for name, variant in (("plain", layout), ("chosen", replace(layout, channels=(3, 1))))
    )
    assert (tmp_path / "chosen/index.json").read_bytes() == (tmp_path / "plain/index.json").read_bytes()
    np.testing.assert_array_equal(
        SceneReader(chosen).image(whole("2_10")), SceneReader(plain).image(whole("2_10"))
    )


def test_channels_that_the_image_lacks_are_refused(tmp_path: Path) -> None:
    layout, _, _ = potsdam(tmp_path)
    with pytest.raises(UserError, match=r"dataset.channels=\[4, 1, 2\]: .*RGB.tif has only 3 bands"):
        prepare_scenes(replace(layout, channels=(4, 1, 2)), tmp_path, tmp_path / "scenes")


# Reading


@pytest.fixture
def index(tmp_path: Path) -> SceneIndex:
    return prepare_scenes(potsdam(tmp_path / "raw")[0], tmp_path / "raw", tmp_path / "scenes")


def test_windows_are_cut_where_they_say(index: SceneIndex) -> None:
    reader = SceneReader(index, channels=(3, 1))
    image, mask = archives.image(0), archives.reference(0, archives.ISPRS, archives.ISPRS_IGNORED)[1]
    for tile in tile_scene("2_10", 40, 56, size=16, stride=12):
        part = slice(tile.row, tile.row + 16), slice(tile.column, tile.column + 16)
        assert np.array_equal(reader.image(tile), image[part][..., [2, 0]])
        assert np.array_equal(reader.mask(tile), mask[part])
    assert reader.image(tile).flags.c_contiguous


@pytest.mark.parametrize(
    ("channels", "display", "shown"),
    [
        ((1, 2, 3), None, [0, 1, 2]),
        ((3, 1, 2), None, [2, 0, 1]),
        ((2,), None, [1, 1, 1]),
        ((3, 1), None, [2, 0, 0]),
        ((3, 1, 2, 2), (4, 1, 2), [1, 2, 0]),
        ((3, 1), (2,), [0, 0, 0]),
    ],
)
def test_a_picture_has_the_three_channels_chosen(
    index: SceneIndex, channels: tuple[int, ...], display: tuple[int, ...] | None, shown: list[int]
) -> None:
    reader = SceneReader(index, channels, display)
    assert reader.image(whole("2_10")).shape == (40, 56, len(channels))
    assert np.array_equal(reader.display(whole("2_10")), archives.image(0)[..., shown])


@pytest.mark.parametrize("display", [(1, 2), (1, 2, 4), (0, 1, 2)])
def test_pictures_of_channels_that_are_not_there_are_refused(
    index: SceneIndex, display: tuple[int, ...]
) -> None:
    with pytest.raises(UserError, match=r"dataset.display=\[.*\]: give three positions, or one, from 1 to 3"):
        SceneReader(index, None, display)


def test_a_pickled_reader_opens_its_own_files(index: SceneIndex) -> None:
    reader = SceneReader(index)
    expected = reader.image(whole("2_10"))
    copy = pickle.loads(pickle.dumps(reader))
    assert not copy._open
    assert np.array_equal(copy.image(whole("2_10")), expected)


def test_a_forked_reader_opens_its_own_files(index: SceneIndex) -> None:
    reader = SceneReader(index)
    expected = reader.image(whole("2_10"))
    inherited = dict(reader._open)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def read() -> None:
        same = np.array_equal(reader.image(whole("2_10")), expected)
        answers.put((same, any(reader._open[name] is dataset for name, dataset in inherited.items())))

    child = context.Process(target=read)
    child.start()
    assert answers.get() == (True, False)
    child.join()
    assert np.array_equal(reader.image(whole("2_10")), expected)
    assert dict(reader._open) == inherited


def test_open_files_are_bounded(index: SceneIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = index.scene("2_10")
    many = replace(
        index, scenes=tuple(replace(scene, name=str(n), image=f"images/{n}.tif") for n in range(MAX_OPEN + 4))
    )
    content = (index.folder / scene.image).read_bytes()
    for other in many.scenes:
        (index.folder / other.image).write_bytes(content)
    opened = []
    original = rasterio.open
    monkeypatch.setattr("rasterio.open", lambda path: opened.append(original(path)) or opened[-1])
    reader = SceneReader(many)
    for _ in range(2):
        for other in many.scenes:
            reader.image(whole(other.name))
            assert sum(not dataset.closed for dataset in opened) <= MAX_OPEN
    reader.close()
    assert all(dataset.closed for dataset in opened)


def test_a_damaged_scene_names_file_and_window(index: SceneIndex) -> None:
    path = index.folder / "images/5_15.tif"
    path.write_bytes(path.read_bytes()[:-150_000])
    with pytest.raises(
        UserError, match=r"images/5_15.tif is damaged.*delete the scene and run stage=prepare again"
    ):
        SceneReader(index).image(whole("5_15"))
    path.unlink()
    with pytest.raises(
        UserError, match=r"images/5_15.tif does not exist: delete the scene and run stage=prepare"
    ):
        SceneReader(index).image(whole("5_15"))


@pytest.mark.parametrize(
    "tile", [Tile("2_10", 30, 0, 16, 16), Tile("2_10", 0, 50, 16, 16), Tile("2_10", -1, 0, 16, 16)]
)
def test_windows_beyond_the_scene_are_refused(index: SceneIndex, tile: Tile) -> None:
    with pytest.raises(UserError, match="only 40 x 56 pixels"):
        SceneReader(index).image(tile)


def test_an_unknown_scene_is_named(index: SceneIndex) -> None:
    with pytest.raises(UserError, match="has no scene '9_9'"):
        SceneReader(index).image(whole("9_9"))
    with pytest.raises(UserError, match=r"dataset.channels=\[1, 2, 4\]: scene 2_10 has the bands 1 to 3"):
        SceneReader(index, (1, 2, 4))


@pytest.mark.parametrize(
    "content", [None, "", "{}", "[]", '{"classes": 3}', '{"classes": {"a": [1, 2]}, "ignored": {}}']
)
def test_a_missing_or_foreign_index_names_the_command(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"index.json .*run python -m ome.run stage=prepare with"):
        SceneIndex.read(tmp_path)
