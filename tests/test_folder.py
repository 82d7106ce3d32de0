"""A folder of anybody's images, prepared: kinds, depths, bands, masks, and what is wrong with them."""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from ome.data.byte_image import open_scene
from ome.data.folder import folder_layout
from ome.data.palette import DISTINCT, SHADES, distinct_colours
from ome.data.prepare import names_opacity, prepare_scenes
from ome.data.scaling import Scaling
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.geo.raster_folder import rasters_in
from ome.ignore import IGNORE
from ome.inference.map_files import check_folders, check_names
from ome.inference.map_rows import MapOptions
from ome.tagging.items import find_images
from tests import archives

TAGS = "image,split,tags\na,train,road;tree\nb,test,tree\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a JPEG, two PNGs and a GeoTIFF of different sizes, and a table that names two of them."""
    folder = tmp_path / "my images"
    folder.mkdir()
    smooth = np.full((40, 56, 3), (90, 120, 60), dtype=np.uint8)
    (folder / "a.JPG").write_bytes(archives.raster(smooth, "JPEG"))
    (folder / "b.png").write_bytes(archives.raster(archives.image(1, 3, 30, 20), "PNG"))
    (folder / "c (1).tif").write_bytes(archives.raster(archives.image(2, 3, 64, 64)))
    (folder / "notes.txt").write_text("no image")
    (tmp_path / "tags.csv").write_text(TAGS)
    return folder


def prepare(images: Path, **facts: object) -> SceneIndex:
    layout = folder_layout(
        archives.facts("custom") | {"tags": str(images.parent / "tags.csv")} | facts, images
    )
    return prepare_scenes(layout, images, images.parent / "scenes")


def whole(index: SceneIndex, name: str) -> Tile:
    scene = index.scene(name)
    return Tile(name, 0, 0, scene.height, scene.width)


def test_images_of_every_kind_and_size_become_scenes(images: Path) -> None:
    index = prepare(images)
    assert {scene.name: (scene.split, scene.height, scene.width) for scene in index.scenes} == {
        "a": ("train", 40, 56),
        "b": ("test", 30, 20),
        "c (1)": ("test", 64, 64),  # in no row of the table
    }
    assert index.palette.classes == {"road": DISTINCT[0], "tree": DISTINCT[1]}
    assert index.channels == (1, 2, 3)
    reader = SceneReader(index)
    assert np.array_equal(reader.image(whole(index, "c (1)")), archives.image(2, 3, 64, 64))
    assert not reader.has_mask("a")


@pytest.mark.parametrize("target", ["gone.tif", "d.tif", "notes.txt/d.tif"])
@pytest.mark.parametrize("place", ["images", "masks"])
def test_a_link_to_nothing_is_no_image_that_is_missing(images: Path, place: str, target: str) -> None:
    """As after a move of the originals: it would be left out of training and maps without a word."""
    (images.parent / "masks").mkdir()
    folder = images if place == "images" else images.parent / "masks"
    (folder / "d.tif").symlink_to(target)
    with pytest.raises(UserError, match=r"d\.tif is a link to a file that does not exist: restore it,"):
        prepare(images, masks=str(images.parent / "masks"))
    with pytest.raises(UserError, match=r"d\.tif is a link to a file that does not exist"):
        rasters_in(folder)


def test_classes_come_with_their_own_order_and_colours(images: Path) -> None:
    assert prepare(images, classes=["tree", "lake", "road"]).palette.names == ("tree", "lake", "road")
    colours = {"tree": (1, 2, 3), "road": (4, 5, 6)}
    assert prepare(images, classes=colours).palette.classes == colours


def test_a_class_named_twice_moves_no_index(images: Path) -> None:
    with pytest.raises(UserError, match=r"^dataset\.classes: road is named twice; name it once$"):
        prepare(images, classes=["road", "road ", "tree"])


def test_many_classes_have_colours_of_their_own() -> None:
    names = [f"class {number}" for number in range(len(DISTINCT) * len(SHADES))]
    colours = distinct_colours(names)
    assert len({*colours.values(), (0, 0, 0)}) == len(names) + 1
    with pytest.raises(UserError, match=r"49 classes are more than the 48 default colours"):
        distinct_colours([*names, "one more"])


# Masks


def test_masks_of_indices_follow_the_order_of_the_classes(images: Path) -> None:
    masks = images.parent / "masks"
    masks.mkdir()
    values = np.random.default_rng(0).choice([0, 1, 2, 255], (40, 56)).astype(np.uint8)
    Image.fromarray(values).save(masks / "a.png")
    index = prepare(images, masks=str(masks))
    reader = SceneReader(index)
    assert np.array_equal(reader.mask(whole(index, "a")), np.where(values > 1, IGNORE, values))
    assert index.unknown.counts == (((2, 2, 2), int((values == 2).sum())),)
    assert not reader.has_mask("b")
    index = prepare(images, masks=str(masks), indices={"road": 2, "tree": 0})
    expected = np.select([values == 2, values == 0], [0, 1], IGNORE)
    assert np.array_equal(SceneReader(index).mask(whole(index, "a")), expected)


def test_masks_in_colours_follow_the_colours_of_the_classes(images: Path) -> None:
    masks = images.parent / "masks"
    masks.mkdir()
    colours, mask = archives.reference(0, archives.ISPRS[:2], archives.ISPRS_IGNORED[:1])
    (masks / "a.tif").write_bytes(archives.raster(colours))
    classes = {"road": archives.ISPRS[0], "tree": archives.ISPRS[1]}
    ignored = {"clutter": archives.ISPRS_IGNORED[0]}
    index = prepare(images, masks=str(masks), classes=classes, ignored=ignored)
    assert np.array_equal(SceneReader(index).mask(whole(index, "a")), mask)
    assert index.unknown.pixels == 0


# Depths and bands


def twelve_bits(seed: int, bands: int = 4) -> np.ndarray[Any, np.dtype[np.uint16]]:
    values = np.random.default_rng(seed).gamma(4, 200, (40, 56, bands)).clip(1, 4095).astype(np.uint16)
    values[:5] = 0
    return values


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (None, ""),
        ([0, 4095], ""),
        ([100, 1100], ""),
        ([0, 255], "range=[0, 255] does not fit 2 of 2 images"),
        ([0, 1], "range=[0, 1] does not fit 2 of 2 images"),
        ([0, 65535], "range=[0, 65535] does not fit 2 of 2 images"),
        ([5000, 9000], "range=[5000, 9000] does not fit 2 of 2 images"),
    ],
)
def test_limits_in_another_unit_than_the_values_are_pointed_out(
    images: Path, limits: list[int] | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would make every image white, black or nearly so, in training and in maps."""
    for name in ("a.JPG", "b.png", "c (1).tif"):
        (images / name).unlink()
    for name in ("a", "b"):
        (images / f"{name}.tif").write_bytes(archives.raster(twelve_bits(0), nodata=0))
    prepare(images, range=limits)
    output = " ".join(capsys.readouterr().out.split())
    assert ("does not" in output) == bool(message)
    assert message in output
    measured = twelve_bits(0)[5:]
    first, last = np.percentile(measured, [2, 98], axis=(0, 1), method="inverted_cdf")
    values = f"a.tif has values from {first.min()} to {last.max()} (percentiles 2 and 98)"
    assert (values in output) == bool(message)
    with open_scene(images / "a.tif", (1, 2, 3, 4), limits and (limits[0], limits[1])):
        output = " ".join(capsys.readouterr().out.split())
    assert (f"{values}: dataset.range={limits} does not fit them" in output) == bool(message)


@pytest.mark.parametrize(
    ("levels", "limits", "said"),
    [
        ((200, 450, 2600, 7000), None, True),
        ((200, 450, 2600, 7000), [0, 8000], False),
        ((1000, 1000, 1010, 990), None, False),  # each has the values of all
        ((5000,), None, False),
    ],
)
def test_tiles_of_sixteen_bits_that_stretching_makes_alike_are_pointed_out(
    levels: Sequence[int],
    limits: list[int] | None,
    said: bool,
    images: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in images.iterdir():
        path.unlink()
    (images.parent / "tags.csv").write_text("image,tags\n0,road;tree\n")
    rng = np.random.default_rng(0)
    tiles = [rng.normal(level, 20, (40, 50, 3)).clip(1, None).astype(np.uint16) for level in levels]
    for number, pixels in enumerate(tiles):
        (images / f"{number}.tif").write_bytes(archives.raster(pixels))
    prepare(images, range=limits)
    output = " ".join(capsys.readouterr().out.split())
    assert (f"{len(levels)} images of 16 bits are stretched one by one" in output) == said
    if said:
        low, high = map(int, re.findall(r"dataset\.range=\[(\d+), (\d+)\]", output)[0])
        expected = np.percentile(np.concatenate([pixels.ravel() for pixels in tiles]), [2, 98])
        np.testing.assert_allclose([low, high], expected, rtol=0.02)
        prepare(images, range=[low, high])
        assert "16 bits" not in capsys.readouterr().out


def test_what_an_image_was_is_known_of_its_scene(images: Path) -> None:
    """Scenes have 8 bits and no labels: maps are compared with the images."""
    (images / "d.tif").write_bytes(archives.raster(twelve_bits(0)))
    with rasterio.open(images / "d.tif", "r+") as dataset:
        dataset.descriptions = ("Nir", "red", None, "Blue")
    reader = SceneReader(prepare(images, channels=[1]), [1])
    assert reader.source("a") == ("uint8", 3, ("red", "green", "blue"))
    assert reader.source("d") == ("uint16", 4, ("nir", "red", "", "blue"))


def test_images_of_8_and_16_bits_are_pointed_out(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(images)
    assert " bits" not in capsys.readouterr().out
    prepare(images, range=[0, 4095])
    assert "all images have 8 bits: dataset.range=[0, 4095] does not apply" in capsys.readouterr().out
    with open_scene(images / "b.png", (1, 2, 3), (0, 4095)):
        assert "b.png has 8 bits: dataset.range=[0, 4095] does not apply to it" in capsys.readouterr().out
    (images / "d.tif").write_bytes(archives.raster(twelve_bits(0, 3)))
    prepare(images)
    assert "1 images have 16 bits and are scaled to 8, 3 have 8 bits and are not" in capsys.readouterr().out


def test_sixteen_bits_are_spread_between_the_percentiles_of_what_was_measured(images: Path) -> None:
    deep = twelve_bits(0)
    for name in ("a.JPG", "b.png", "c (1).tif"):
        (images / name).unlink()
    (images / "a.tif").write_bytes(archives.raster(deep, nodata=0))
    (images / "b.tif").write_bytes(archives.raster(deep[::-1].copy(), nodata=0))
    index = prepare(images)
    assert index.channels == (1, 2, 3, 4)
    image = SceneReader(index).image(whole(index, "a"))
    for band in range(4):
        values = deep[..., band].astype(float)
        low, high = np.percentile(deep[5:, :, band], [2, 98], method="inverted_cdf")
        expected = np.clip((values - low) / (high - low) * 255, 0, 255)
        assert np.abs(image[..., band] - expected).max() <= 0.5
    assert not image[:5].any()
    index = prepare(images, range=[100, 1100])
    image = SceneReader(index).image(whole(index, "a"))
    assert np.abs(image - np.clip((deep.astype(float) - 100) / 1000 * 255, 0, 255)).max() <= 0.5


def test_a_band_without_values_or_of_one_value_is_black() -> None:
    strips = [np.full((2, 3, 4), 500, dtype=np.uint16)]
    counts = np.zeros((2, 1 << 16), dtype=np.int64)
    counts[:, 500] = 12
    assert not Scaling.of_counts(counts, (500.0, None)).to_bytes(strips[0]).any()
    assert not Scaling.of_counts(np.zeros((1, 1 << 16), dtype=np.int64), (None,)).tables[0, 0]


@pytest.mark.parametrize("limits", [None, (100, 1100)])
def test_a_valid_pixel_with_a_nodata_value_in_one_band_is_saturated(
    limits: tuple[int, int] | None, tmp_path: Path
) -> None:
    pixels = twelve_bits(0)[..., :3].copy()
    pixels[:5], pixels[8, 9, 1] = 65535, 65535
    (tmp_path / "scene.tif").write_bytes(archives.raster(pixels, nodata=65535))
    with open_scene(tmp_path / "scene.tif", (1, 2, 3), limits) as scene:
        read = scene.read(0, 0, *pixels.shape[:2])
        assert scene.valid(8, 9, 1, 1).all()
    assert read[8, 9, 1] == 255
    assert not read[:5].any()


def test_opacity_is_no_band_and_colour_tables_are_looked_up(images: Path) -> None:
    (images / "b.png").unlink()
    picture = archives.image(5, 4)
    Image.fromarray(picture, "RGBA").save(images / "b.png")
    indexed = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 2, "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.save(images / "d.png")
    index = prepare(images)
    assert index.channels == (1, 2, 3)
    reader = SceneReader(index)
    assert np.array_equal(reader.image(whole(index, "b")), picture[..., :3])
    assert reader.image(whole(index, "d"))[0, :2].tolist() == [[10, 20, 30], [40, 50, 60]]


@pytest.mark.parametrize("channels", [[4, 1, 2], [1, 2, 3, 4], [1, 2, 3], None])
@pytest.mark.parametrize("fourth", ["empty", "two values", "opacity", "many values"])
def test_scenes_and_new_images_agree_on_what_was_measured(
    images: Path, channels: list[int] | None, fourth: str, capsys: pytest.CaptureFixture[str]
) -> None:
    band = {
        "empty": np.zeros((40, 56), np.uint8),  # infrared over water
        "two values": archives.image(1, 1)[..., 0] // 128 * 255,  # saturated infrared
        "opacity": np.full((40, 56), 255, np.uint8),
        "many values": archives.image(2, 1)[..., 0],
    }[fourth]
    if fourth == "opacity":
        band[:, :16] = 0
    opacity = fourth in {"two values", "opacity"}
    for path in images.iterdir():
        path.unlink()
    for name in ("a", "b"):
        pixels = np.dstack([archives.image(5, 3), band])
        (images / f"{name}.tif").write_bytes(archives.raster(pixels, photometric="RGB", alpha="YES"))
    index = prepare(images, channels=channels)
    printed = " ".join(capsys.readouterr().out.split())
    reader = SceneReader(index, channels)
    with open_scene(images / "a.tif", reader.channels) as new:
        expected = new.valid(0, 0, 40, 56)
    assert np.array_equal(reader.valid(whole(index, "a")), expected)
    if named := 4 in reader.channels:
        assert expected.all()
    assert ("of 2 images is opacity, but dataset.channels includes it" in printed) == (named and opacity)
    if not named and opacity:
        with pytest.raises(
            UserError, match=r"channels=\[4\]: band 4 was opacity when the scenes in .*stage=pre"
        ):
            SceneReader(SceneIndex.read(index.folder), [4])


@pytest.mark.parametrize(
    "names", [("d", "D"), ("stra\u00dfe", "STRASSE"), ("caf\u00e9", "cafe\u0301"), ("d", "d_")]
)
@pytest.mark.parametrize("ending", ["tif", "png"])
@pytest.mark.parametrize("by", ["prepare", "tags", "list", "folder"])
def test_names_that_are_one_on_many_disks_are_refused_everywhere(
    images: Path, names: tuple[str, str], ending: str, by: str
) -> None:
    """Composed accents and decomposed ones look alike and are one image in a table, too."""
    paths = [images / f"{names[0]}.tif", images / f"{names[1]}.{ending}"]
    for path in paths:
        path.write_bytes(archives.raster(archives.image(1, 3), "PNG" if path.suffix == ".png" else "GTiff"))
    options = MapOptions()
    calls: dict[str, Callable[[], object]] = {
        "prepare": lambda: prepare(images),
        "tags": lambda: find_images(images),
        "list": lambda: check_folders(paths),
        "folder": lambda: check_names(paths, options),
    }
    with (
        nullcontext()
        if names[1] == "d_"
        else pytest.raises(UserError, match=r"keep one|: rename one of them")
    ):
        calls[by]()


@pytest.mark.parametrize("nodata", [None, 255])
def test_what_images_seem_to_say_about_invalid_pixels_is_pointed_out_once(
    images: Path, nodata: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in images.iterdir():
        path.unlink()
    for name in ("a", "b"):
        pixels = np.dstack([archives.image(5, 3), np.full((40, 56), 255, np.uint8)])
        pixels[:, :16] = 0
        (images / f"{name}.tif").write_bytes(archives.raster(pixels, photometric="RGB", alpha="NO"))
        Image.fromarray(pixels[..., :3]).save(images / "c.tif", tiffinfo={42113: "-9999"})
    prepare(images, channels=[1, 2, 3], nodata=nodata)
    printed = " ".join(capsys.readouterr().out.split())
    opacity = r"a\.tif has opacity in band 4, .* -colorinterp_4 alpha FILE \(and 1 other images alike\)"
    assert re.search(opacity, printed)
    assert ("nodata=-9999, which no pixel of uint8 can have" in printed) == (nodata is None)


def test_scenes_are_prepared_again_for_channels_that_name_opacity_only(images: Path) -> None:
    opaque = np.full((40, 56, 1), 255, np.uint8)
    (images / "a.JPG").unlink()
    (images / "a.tif").write_bytes(
        archives.raster(np.dstack([archives.image(5, 3), opaque]), photometric="RGB", alpha="YES")
    )
    table = str(images.parent / "tags.csv")

    def depends(*channels: int) -> bool:
        facts = archives.facts("custom") | {"tags": table, "channels": channels}
        return names_opacity(folder_layout(facts, images), images)

    assert [depends(), depends(3, 2, 1), depends(4, 1, 2)] == [False, False, True]


def test_images_of_different_bands_need_a_choice(images: Path) -> None:
    # Without need a choice is not written down: every reader makes its own.
    assert prepare(images, channels=[3]).channels == (1, 2, 3)
    (images / "d.png").write_bytes(archives.raster(archives.image(4, 1), "PNG"))
    message = (
        r"3 with the bands \[1, 2, 3\] \(e.g. .*a.JPG\) and 1 with the bands \[1\] \(e.g. .*d.png\).*channels"
    )
    with pytest.raises(UserError, match=message):
        prepare(images)
    index = prepare(images, channels=[1])
    assert SceneReader(index, [1]).channels == (1,)
    with pytest.raises(UserError, match=r"differ in their bands: choose bands that all have, e\.g\. 'data"):
        SceneReader(index)
    with pytest.raises(UserError, match=r"dataset.channels=\[1, 2\]: .*d.png has only 1 bands"):
        prepare(images, channels=[1, 2])


@pytest.mark.parametrize("names", [("blue", "green", "red"), ("red", "green", "blue"), ("", "", "")])
def test_images_of_another_order_of_bands_are_named(
    images: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "d.tif").write_bytes(archives.raster(archives.image(2, 3), photometric="RGB"))
    with rasterio.open(images / "d.tif", "r+") as raster:
        raster.descriptions = names
    prepare(images)
    printed = " ".join(capsys.readouterr().out.split())
    line = "the images label their bands differently, 3 red, green, blue (e.g. "
    assert (line in printed) == (names[0] == "blue")
    assert ("1 blue, green, red (e.g. " in printed) == (names[0] == "blue")


@pytest.mark.parametrize(
    ("last", "channels", "message"),
    [
        (archives.image(4, 1), None, r"the images differ in their bands, 3 with .* and 1 with"),
        (archives.image(4, 2), [1, 2, 3], r"dataset.channels=\[1, 2, 3\]: .*d.png has only 2 bands"),
    ],
)
def test_bands_are_compared_before_the_first_scene_is_written(
    images: Path, last: np.ndarray[Any, np.dtype[np.uint8]], channels: list[int] | None, message: str
) -> None:
    Image.fromarray(last.squeeze(), "LA" if last.shape[2] == 2 else "L").save(images / "d.png")
    with pytest.raises(UserError, match=message):
        prepare(images, channels=channels)
    assert not (images.parent / "scenes").exists()


def test_an_image_that_is_skipped_is_not_compared(images: Path) -> None:
    (images / "d.tif").write_bytes(archives.raster(archives.image(0, 1).astype(np.float32)))
    (images / "e.tif").write_bytes(b"")
    whole = archives.raster(archives.image(4, 1))
    (images / "f.tif").write_bytes(whole[: len(whole) // 2])
    layout = folder_layout(archives.facts("custom") | {"tags": str(images.parent / "tags.csv")}, images)
    index = prepare_scenes(layout, images, images.parent / "scenes", skip_broken=True)
    assert (index.broken, index.channels) == (("d", "e", "f"), (1, 2, 3))


@pytest.mark.parametrize(
    ("codes", "sizes", "splits", "lines"),
    [
        ((32633, 32633), (0.5, 10), "train,train", ["are 0.5 m to 10 m wide (e.g. "]),
        ((32633, 32633), (0.5, 10), "train,test", []),
        ((32633, 32633), (0.5, 0.6), "train,train", []),
        ((32633, 32634), (0.5, 0.5), "train,train", []),
        ((32633, 3857), (0.5, 2), "train,train", ["are 0.5 m to 1.2"]),  # on the ground, at 52 degrees north
        ((32633, 4326), (1, 1.2e-5), "train,train", ["1 training images have degrees as coordinates (e.g. "]),
        ((None, 32633), (1, 10), "train,train", []),
    ],
)
def test_training_images_of_other_pixel_sizes_are_pointed_out(
    images: Path,
    codes: tuple[int | None, ...],
    sizes: tuple[float, ...],
    splits: str,
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = ["image,split,tags"]
    corners = {32633: (5e5, 5.8e6), 32634: (5e5, 5.8e6), 3857: (1.67e6, 6.86e6), 4326: (15, 52)}
    for path in images.iterdir():
        path.unlink()
    for name, code, size, split in zip("ab", codes, sizes, splits.split(","), strict=True):
        place: dict[str, object] = {}
        if code is not None:
            place = {"crs": code, "transform": Affine(size, 0, corners[code][0], 0, -size, corners[code][1])}
        (images / f"{name}.tif").write_bytes(archives.raster(archives.image(1, 3), **place))
        rows.append(f"{name},{split},tree")
    (images.parent / "tags.csv").write_text("\n".join(rows))
    prepare(images)
    printed = " ".join(capsys.readouterr().out.split())
    assert [line in printed for line in lines] == [True] * len(lines)
    assert ("pixels of the training" in printed) + ("degrees as coordinates" in printed) == len(lines)


# Mistakes


def test_broken_images_are_counted_and_named_in_one_line(images: Path) -> None:
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:-200])
    (images / "d.tif").write_bytes(b"")
    (images / "e.tif").write_bytes(archives.raster(archives.image(0).astype(np.float32)))
    with pytest.raises(UserError) as raised:
        prepare(images)
    message = str(raised.value)
    assert message.startswith("3 of 5 scenes cannot be read: ")
    for part in ("b.png is damaged", "d.tif is damaged", "e.tif holds float32 values"):
        assert part in message
    assert "\n" not in message
    # What could be read is kept, and nothing passes for whole.
    assert not (images.parent / "scenes/index.json").exists()
    assert (images.parent / "scenes/images/a.tif").exists()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"tags": None}, "dataset.tags is not set: type dataset.tags="),
        ({"masks": "nowhere"}, "dataset.masks: nowhere does not exist"),
        ({"range": [5]}, r"dataset.range=\[5\]: give the values that become 0 and 255"),
        ({"range": [9, 9]}, r"dataset.range=\[9, 9\]"),
        ({"range": [0, 70000]}, r"dataset.range=\[0, 70000\]"),
        ({"classes": ["road"]}, "line 2: unknown class 'tree'; the classes are road"),
        ({"classes": {"road": 3, "tree": 4}}, "dataset.classes and dataset.ignored: give colours as"),
        ({"indices": {"road": 1}}, "dataset.indices lacks tree"),
    ],
)
def test_wrong_settings_are_named(images: Path, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(images, **facts)


def test_rows_without_an_image_are_named(images: Path) -> None:
    (images.parent / "tags.csv").write_text(
        "image,tags\na,tree\n" + "".join(f"{n}.jpg,tree\n" for n in range(6))
    )
    message = (
        r"6 of 7 images in .*tags.csv are not in .*my images: 0 \(line 3\), .*4 \(line 7\), \.\.\.; correct"
    )
    with pytest.raises(UserError, match=message):
        prepare(images)


def test_a_table_without_training_images_is_refused(images: Path) -> None:
    (images.parent / "tags.csv").write_text("image,split,tags\na,test,tree\n")
    with pytest.raises(UserError, match=r"tags.csv leaves no image to train on"):
        prepare(images)


def test_images_in_a_subfolder_are_named(images: Path) -> None:
    below = images / "north"
    below.mkdir()
    for image in images.glob("*.*"):
        image.rename(below / image.name)
    with pytest.raises(UserError, match=r"no GeoTIFF, .*; north/a\.\w+ is in a subfolder, which is not read"):
        prepare(images)
    with pytest.raises(UserError, match=r"holds no GeoTIFF.*; north/a\.\w+ is in a subfolder"):
        rasters_in(images)
    first = min(below.iterdir())
    first.with_stem("other").write_bytes(first.read_bytes())
    first.with_stem("other").rename(images / f"other{first.suffix}")
    with pytest.raises(UserError, match=r"are not in .*; north/a\.\w+ is in a subfolder, which is not read"):
        prepare(images)


@pytest.mark.parametrize(
    ("file", "row", "hint"),
    [
        ("d.jp2", "d.jp2", "; d.jp2 is there, but only GeoTIFF, PNG and JPEG are read: .* IN OUT.tif"),
        ("d.bmp", "d", "; d.bmp is there, but only .*"),
        ("D.IMG", "D.IMG", "; D.IMG is there, but only .*"),
        ("D.png", "d.png", "; for d the folder has D"),
        ("d.png", "D", "; for D the folder has d"),
        ("001.png", "1", "; for 1 the folder has 001"),
        ("tile_01.png", "tile-1.tif", "; for tile-1 the folder has tile_01"),
        ("d.png", "d.jp2", "; for d.jp2 the folder has d"),
        ("d.txt", "e", ""),
    ],
)
def test_a_row_whose_file_is_there_under_another_name_is_told_where(
    images: Path, file: str, row: str, hint: str
) -> None:
    (images / file).write_bytes(archives.raster(archives.image(0), "PNG"))
    (images.parent / "tags.csv").write_text(f"{TAGS}{row},train,tree\n")
    with pytest.raises(UserError, match=f"1 of 3 images in .* are not in .* or add the images{hint}$"):
        prepare(images)


def test_a_folder_of_another_format_says_so(images: Path) -> None:
    for path in images.iterdir():
        path.unlink()
    (images / "d.jp2").touch()
    for read in (lambda: prepare(images), lambda: rasters_in(images), lambda: find_images(images)):
        with pytest.raises(UserError, match=r"no GeoTIFF, PNG or JPEG.*; d\.jp2 is there, but only GeoTIFF"):
            read()


@pytest.mark.parametrize(
    ("table", "masks", "line"),
    [
        ("a,train,tree\nb,val,tree\n", False, "they are mapped, in place of the val images (c (1), d_thumb)"),
        ("a,train,tree\nb,test,tree\n", False, "they are mapped (c (1), d_thumb)"),
        ("a,train,tree\nb,val,tree\n", True, "they are mapped (c (1), d_thumb)"),
        ("a,train,tree\nb,val,tree\nc (1),test,\nd_thumb,test,\n", False, ""),
    ],
)
def test_images_without_a_row_and_other_formats_are_named_once(
    images: Path, table: str, masks: bool, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("d_thumb.png", "a.webp", "e.jp2", "f.bmp"):
        (images / name).touch()
    if masks:
        (images.parent / "masks").mkdir()
        (images.parent / "masks/b.png").touch()
    tags = images.parent / "tags.csv"
    tags.write_text(f"image,split,tags\n{table}")
    facts = archives.facts("custom") | {
        "tags": str(tags),
        "masks": str(images.parent / "masks") if masks else None,
    }
    for _ in range(2):
        folder_layout(facts, images)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("2 of 4 images have no row in") == bool(line)
    assert line in printed
    assert printed.count(f"2 files in {images} are left out, since only GeoTIFF, PNG and JPEG are read") == 1
    assert "IN OUT.tif (e.jp2, f.bmp)" in printed  # beside a.webp there is a.JPG


@pytest.mark.parametrize("ending", ["_mask", "_masks", "_label", "_LABELS", "_gt"])
def test_masks_among_the_images_are_refused(images: Path, ending: str) -> None:
    (images / f"b{ending}.png").write_bytes(archives.raster(archives.image(0), "PNG"))
    with pytest.raises(UserError, match=rf"1 images in .* are masks, by their names: b{ending} of b; move"):
        prepare(images)
    (images.parent / "tags.csv").write_text(f"{TAGS}b{ending},test,\n")  # as the line says
    assert prepare(images).scene(f"b{ending}").split == "test"
    (images / f"b{ending}.png").rename(images / f"z{ending}.png")
    (images.parent / "tags.csv").write_text(TAGS)
    assert prepare(images).scene(f"z{ending}").split == "test"


def test_a_folder_without_images_and_masks_of_other_names_are_refused(images: Path) -> None:
    empty = images.parent / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"dataset.masks: no GeoTIFF, PNG or JPEG in .*empty"):
        prepare(images, masks=str(empty))
    (empty / "a_mask.png").write_bytes(archives.raster(archives.image(0, 1), "PNG"))
    with pytest.raises(
        UserError, match=r"none of the 1 masks in .* has an image's name, one is called a_mask: name"
    ):
        prepare(images, masks=str(empty))
    with pytest.raises(UserError, match=r"dataset.raw: nowhere does not exist"):
        folder_layout(archives.facts("custom") | {"tags": str(images.parent / "tags.csv")}, Path("nowhere"))


@pytest.mark.parametrize("name", [b"a\nb.tif", b"a\\b.tif", b"a\x1b[2J.png", b"a\xff.jpg"])
@pytest.mark.parametrize("folder", ["images", "masks"])
def test_names_that_tables_refuse_are_refused_in_folders(images: Path, name: bytes, folder: str) -> None:
    facts, place = {}, images
    if folder == "masks":
        place = images.with_name("masks")
        place.mkdir()
        facts["masks"] = str(place)
    (place / os.fsdecode(name)).write_bytes(archives.raster(archives.image(0)))
    with pytest.raises(UserError, match=r"the image .* has .* in it: give it another name"):
        prepare(images, **facts)


def test_two_images_of_one_name_are_ambiguous(images: Path) -> None:
    (images / "a.png").write_bytes(archives.raster(archives.image(0), "PNG"))
    with pytest.raises(UserError, match=r"2 files for scene a: a.JPG and a.png; keep one"):
        prepare(images)
