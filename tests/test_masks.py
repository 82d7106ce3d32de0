"""Masks and tags are compared with their images and with one another."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from ome.data.folder import folder_layout
from ome.data.image_tags import read_tags
from ome.data.mask_values import check_mask_values, contradictions, table_conflict
from ome.data.prepare import prepare_scenes
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.errors import UserError
from ome.ignore import IGNORE

PLACE = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_800_000, 10, 10)}
HALVES = np.repeat([[0] * 20 + [1] * 12], 24, axis=0)


def write(path: Path, pixels: np.ndarray, **profile: object) -> None:
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    path.parent.mkdir(exist_ok=True)
    size = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **size | PLACE | profile) as dataset:
        dataset.write(pixels)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write(tmp_path / f"images/{name}.tif", np.full((3, 24, 32), 90, np.uint8))
    (tmp_path / "tags.csv").write_text("image,tags\na,field;water\nb,field;water\n")
    return tmp_path


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((0, 127, 255), r"the values 0, 127, 255 .*\{field: 0, road: 127, water: 255\}'"),
        ((85, 170, 255), r"the values 85, 170, 255 .*\{field: 85, road: 170, water: 255\}'"),
        ((1, 3), r"look like indices from 1.*\{field: 1, road: 2, water: 3\}'$"),
        ((0, 1, 3), r"look like indices from 1.*\{field: 1, road: 2, water: 3, none: 0\}' "),
        ((0, 1, 7, 255), r"the values 0, 1, 7, 255 \(no class has 7, 255\)"),
        ((0, 1, 2, 7, 255), r"the values 0, 1, 2, 7 \(no class has 7\).*if 7 marks pixels without a class"),
        (
            (1, 2),
            r"^no pixel .* is of field: .*are indices from 1, type .*\{field: 1, road: 2, water: 3\}'$",
        ),
        ((0, 255), r"^no pixel .* is of road, water: .*; masks hold 255: if it is a class, type"),
        ((0, 1), r"^no pixel .* is of water: .*, or rewrite them$"),
        ((0, 1, 2, 255), r"^$"),
    ],
)
def test_values_of_three_classes(folder: Path, values: Sequence[int], line: str) -> None:
    """255 may be a class where one has no pixel; otherwise it means no class."""
    (folder / "tags.csv").write_text("image,tags\na,field;water;road\nb,field;water;road\n")
    mask = np.array(values, np.uint8)[np.arange(24 * 32).reshape(24, 32) % len(values)]
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", mask)
    try:
        said = " ".join(prepare(folder)[1])
    except UserError as error:
        said = str(error)
    assert re.search(line, said), said


def test_masks_of_zeros_alone_are_named_where_zero_is_no_class(folder: Path) -> None:
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", np.zeros((24, 32), np.uint8))
    with pytest.raises(UserError, match=r"hold the values 0 \(no class has 0\).*give each class its value"):
        prepare(folder, indices={"field": 1, "water": 2})


def prepare(folder: Path, **facts: object) -> tuple[SceneIndex, list[str]]:
    facts = {
        "name": "mine",
        "bands": "all",
        "reference": "full",
        "tags": "tags.csv",
        "masks": "masks",
    } | facts
    layout = folder_layout(facts, folder / "images")
    index = prepare_scenes(layout, folder / "images", folder / "scenes")
    return index, list(check_mask_values(layout, folder / "images", index))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 255), r"the values 0, 255.*'dataset.indices=\{field: 0, water: 255\}'"),
        ((1, 2), r"these look like indices from 1.*'dataset.indices=\{field: 1, water: 2\}'"),
        ((10, 20), r"the values 10, 20.*'dataset.indices=\{field: 10, water: 20\}'"),
        (
            (0, 1, 2),
            r"indices=\{field: 1, water: 2, none: 0\}' 'dataset.ignored=\{none: \[0, 0, 0",
        ),
        (
            (0, 1, 254),
            r"if 254 marks pixels without a class, .*\{field: 0, water: 1, none: 254\}' '.*\[254, 254, 254\]",
        ),
        ((0, 127, 255), r"the values 0, 127, 255 .*'dataset.indices=\{field: 127, water: 255, none: 0\}'"),
        ((128, 255), r"the values 128, 255 .*'dataset.indices=\{field: 128, water: 255\}'"),
        ((1, 255), r"the values 1, 255 .*'dataset.indices=\{field: 1, water: 255\}'"),
        ((3, 0, 1, 2), r"the values 0, 1, 2, 3.*give each class its value by 'dataset.indices="),
    ],
)
def test_values_that_are_not_the_classes_are_named_with_what_to_type(
    folder: Path, values: Sequence[int], message: str
) -> None:
    mask = np.array(values, np.uint8)[np.arange(24 * 32).reshape(24, 32) % len(values)]
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", mask)
    with pytest.raises(UserError, match=message):
        prepare(folder)


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (255, 0), (1, 0), (0, 255, 255)])
def test_masks_of_no_and_yes_are_refused_with_one_class(folder: Path, values: Sequence[int]) -> None:
    (folder / "tags.csv").write_text("image,tags\na,building\nb,building\n")
    mask = np.array(values, np.uint8)[np.arange(24 * 32).reshape(24, 32) % len(values)]
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", mask)
    remedy = rf"'dataset.indices=\{{other: 0, building: {max(values)}\}}', and tag other"
    with pytest.raises(UserError, match=remedy):
        prepare(folder)


def test_a_single_class_cannot_be_scored(folder: Path) -> None:
    (folder / "tags.csv").write_text("image,tags\na,building\nb,building\n")
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", (HALVES * 255).astype(np.uint8))
    # Who says what 255 is means it.
    index, lines = prepare(folder, indices={"building": 0, "none": 255}, ignored={"none": [9, 9, 9]})
    assert index.class_pixels == {"building": 2 * 24 * 20}
    assert [line.split(":")[0] for line in lines] == ["building is the only class"]


@pytest.mark.parametrize("names", [["field"], ["field", "water"], ["field", "water", "road"]])
def test_masks_without_a_pixel_of_any_class_are_an_error(folder: Path, names: list[str]) -> None:
    (folder / "tags.csv").write_text(f"image,tags\na,{';'.join(names)}\nb,{names[0]}\n")
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", np.full((24, 32), 255, np.uint8))
    with pytest.raises(UserError, match="no pixel of 2 masks is of a class"):
        prepare(folder)


def test_one_scene_may_be_unknown_as_a_whole(folder: Path) -> None:
    write(folder / "masks/a.tif", np.full((24, 32), 255, np.uint8))
    write(folder / "masks/b.tif", HALVES.astype(np.uint8))
    assert prepare(folder)[1] == []


def test_what_a_message_says_to_type_is_right(folder: Path) -> None:
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", (HALVES * 255).astype(np.uint8))
    index, lines = prepare(folder, indices={"field": 0, "water": 255})
    assert index.class_pixels == {"field": 2 * 24 * 20, "water": 2 * 24 * 12}
    assert lines == []


def test_a_value_beside_those_of_right_classes_is_no_shift(folder: Path) -> None:
    """FLAIR's classes count from 1, and ignored ones follow, which a new mapping would leave out."""
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", np.arange(24 * 32).reshape(24, 32).astype(np.uint8) % 3)
    facts = {"indices": {"field": 1, "water": 2, "snow": 3}, "ignored": {"snow": [9, 9, 9]}}
    line = (
        r"values 0, 1, 2 \(no class has 0\), and .*: if 0 marks pixels without a class, type "
        r"'dataset.indices=\{field: 1, water: 2, snow: 3, none: 0\}'"
    )
    with pytest.raises(UserError, match=line):
        prepare(folder, **facts)


@pytest.mark.parametrize("names", ["field;water", "field;road;water"])
@pytest.mark.parametrize("kind", ["GeoTIFF", "PNG"])
def test_a_class_whose_value_is_nodata_is_named(folder: Path, kind: str, names: str) -> None:
    (folder / "tags.csv").write_text(f"image,tags\na,{names}\nb,{names}\n")
    mask = np.arange(24 * 32).reshape(24, 32).astype(np.uint8) % len(names.split(";"))
    (folder / "masks").mkdir()
    for name in ("a", "b"):
        if kind == "GeoTIFF":
            write(folder / f"masks/{name}.tif", mask, nodata=0)
        else:
            indexed = Image.fromarray(mask)
            indexed.putpalette([0, 0, 255, 255, 0, 0, 0, 255, 0])
            indexed.save(folder / f"masks/{name}.png", transparency=0)
    hint = "the masks declare its value as nodata or transparent: gdal_edit -unsetnodata"
    if names.count(";") == 1:
        with pytest.raises(UserError, match=f"hold the values 1 and .*none of field, which is 0: .*{hint}"):
            prepare(folder)
    else:
        assert any("masks is of field: " in line and hint in line for line in prepare(folder)[1])


@pytest.mark.parametrize("depth", ["complex64", "complex128", "complex_int16"])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_complex_values_are_one_line(
    folder: Path, kind: str, depth: str, recwarn: pytest.WarningsRecorder
) -> None:
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", HALVES.astype("uint8"))
        write(folder / f"{kind}/{name}.tif", HALVES.astype("complex64"), dtype=depth)
    with pytest.raises(UserError, match=r"a.tif holds complex values: give a raster of real ones, e.g. the"):
        prepare(folder)
    assert not [warning for warning in recwarn if "Complex" in warning.category.__name__]


@pytest.mark.parametrize(
    ("tables", "differ"),
    [
        (((200, 0, 0), (0, 0, 200), (0, 0, 200), (200, 0, 0)), True),
        (((200, 0, 0), (0, 0, 200), (200, 0, 0), (0, 0, 200)), False),
    ],
)
def test_colour_tables_that_number_classes_differently_are_named(
    folder: Path, tables: Sequence[tuple[int, ...]], *, differ: bool
) -> None:
    """PIL's quantize() chooses a table for each image; values that no pixel has are filled in at will."""
    (folder / "masks").mkdir()
    for name, (first, second) in zip("ab", (tables[:2], tables[2:]), strict=True):
        image = Image.fromarray(HALVES.astype(np.uint8), "P")
        image.putpalette([*first, *second, *((7, 7, 7) if name == "a" else (9, 9, 9))])
        image.save(folder / f"masks/{name}.png")
    facts = {"name": "mine", "bands": "all", "reference": "full", "tags": "tags.csv", "masks": "masks"}
    layout = folder_layout(facts, folder / "images")
    index = prepare_scenes(layout, folder / "images", folder / "scenes")
    conflict = table_conflict(layout, folder / "images", index)
    if not differ:
        assert conflict is None
        return
    assert conflict is not None
    masks = folder / "masks"
    assert f"colour [200, 0, 0] in the mask {masks}/a.png and [0, 0, 200] in {masks}/b.png" in conflict
    assert "'dataset.indices={field: 0, water: 1}'" in conflict
    by_colour = facts | {"classes": {"field": [200, 0, 0], "water": [0, 0, 200]}}
    layout = folder_layout(by_colour, folder / "images")
    index = prepare_scenes(layout, folder / "images", folder / "scenes")
    assert table_conflict(layout, folder / "images", index) is None
    first, second = (SceneReader(index).mask(scene.whole) for scene in index.scenes)
    assert (first == 1 - second).all()


@pytest.mark.parametrize("depth", ["float32", "float64"])
def test_nan_in_a_mask_is_no_class(folder: Path, depth: str) -> None:
    values = HALVES.astype(depth)
    values[:3] = np.nan
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", values)
    assert prepare(folder)[0].class_pixels == {"field": 2 * 21 * 20, "water": 2 * 21 * 12}


@pytest.mark.parametrize("depth", ["int8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_whole_values_of_every_depth_are_read_and_nodata_is_no_class(folder: Path, depth: str) -> None:
    values = HALVES.astype(depth)
    values[:3] = 99
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", values, nodata=99)
    index, _ = prepare(folder)
    with rasterio.open(index.folder / "masks/a.tif") as dataset:
        expected = HALVES.copy()
        expected[:3] = IGNORE
        np.testing.assert_array_equal(dataset.read(1), expected)


@pytest.mark.parametrize(
    "kind", ["NONE", "LZW", "DEFLATE", "ZSTD", "LZMA", "PACKBITS", "CCITTRLE", "CCITTFAX3", "CCITTFAX4"]
)
def test_masks_of_every_lossless_compression_are_read(folder: Path, kind: str) -> None:
    for name in ("a", "b"):
        bits = {"nbits": 1} if kind.startswith("CCITT") else {}
        write(folder / f"masks/{name}.tif", HALVES.astype(np.uint8), compress=kind, **bits)
    assert prepare(folder)[0].class_pixels == {"field": 960, "water": 576}


@pytest.mark.parametrize(
    ("profile", "tags", "message"),
    [
        ({"photometric": "MINISWHITE"}, {}, r"is a negative \(MINISWHITE\), whose values some programs read"),
        ({"photometric": "MINISWHITE", "nbits": 1}, {}, "gdal_translate -co PHOTOMETRIC=MINISBLACK IN OUT"),
        ({"photometric": "MINISWHITE", "nbits": 1, "compress": "CCITTFAX4"}, {}, "is a negative"),
        ({}, {"offsets": (1.0,)}, r"other values are meant \(scale 1, offset 1\): gdal_translate -unscale"),
        ({}, {"scales": (0.5,)}, r"other values are meant \(scale 0.5, offset 0\)"),
        ({"dtype": "float32"}, {"scales": (-1.0,), "offsets": (1.0,)}, r"\(scale -1, offset 1\)"),
    ],
)
def test_a_mask_whose_stored_values_stand_for_others_is_refused(
    folder: Path, profile: dict[str, object], tags: dict[str, object], message: str
) -> None:
    for name in ("a", "b"):
        path = folder / f"masks/{name}.tif"
        write(path, HALVES.astype(np.uint8), **profile)
        with rasterio.open(path, "r+") as dataset:
            for key, value in tags.items():
                setattr(dataset, key, value)
    with pytest.raises(UserError, match=message):
        prepare(folder)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"crs": "EPSG:4326"}, "scene a: the mask .*a.tif is in EPSG:4326, not in EPSG:32633"),
        (
            {"transform": from_origin(500_030, 5_800_000, 10, 10)},
            "is shifted by 3.0 pixels against its image",
        ),
        ({"transform": from_origin(500_000, 5_800_000, 20, 20)}, "shifted by 32.0 pixels against"),
        ({"transform": from_origin(500_000, 5_800_000, 10, -10)}, "shifted by 48.0 pixels against"),
        ({"compress": "JPEG"}, r"has lossy compression \(JPEG\)"),
        ({"compress": "WEBP", "WEBP_LOSSLESS": "NO"}, "compressed as WEBP, which may be lossy"),
        ({"compress": "WEBP", "WEBP_LOSSLESS": "YES"}, "compressed as WEBP, which may be lossy"),
        *(
            ({"compress": kind, "MAX_Z_ERROR": error}, f"compressed as {kind}, which may be lossy: give the")
            for kind in ("LERC", "LERC_DEFLATE", "LERC_ZSTD")
            for error in (0, 3)
        ),
        ({"compress": "JPEG", "photometric": "YCBCR"}, r"has lossy compression \((YCBCR )?JPEG\)"),
    ],
)
def test_a_mask_that_does_not_fit_its_image_is_refused(
    folder: Path, profile: dict[str, object], message: str
) -> None:
    values = HALVES.astype(np.uint8)
    for name in ("a", "b"):
        write(
            folder / f"masks/{name}.tif",
            values[None].repeat(3, 0) if {"WEBP", "YCBCR"} & {*profile.values()} else values,
            **profile,
        )
    with pytest.raises(UserError, match=message):
        prepare(folder)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_photograph_stored_rotated_is_refused(folder: Path, kind: str, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = 6
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", HALVES.astype(np.uint8))
        (folder / f"{kind}/{name}.tif").unlink()
        Image.fromarray(HALVES.astype(np.uint8)).save(folder / f"{kind}/{name}.{suffix}", exif=exif)
    with pytest.raises(UserError, match=r"a\.\w+ is stored rotated \(EXIF orientation 6\)"):
        prepare(folder)


@pytest.mark.parametrize("how", [{"nodata": 90}, {"photometric": "RGB", "alpha": "YES"}])
def test_training_images_without_a_valid_pixel_are_an_error(folder: Path, how: dict[str, object]) -> None:
    pixels = np.full((4 if "alpha" in how else 3, 24, 32), 90, np.uint8)
    pixels[3:] = 0
    for name in ("a", "b"):
        write(folder / f"images/{name}.tif", pixels, **how)
    with pytest.raises(UserError, match="no pixel of 2 training scenes is valid"):
        prepare(folder, masks=None)


def test_a_class_without_reference_and_masks_of_unknown_colours(folder: Path) -> None:
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", np.zeros((24, 32), np.uint8))
    (line,) = prepare(folder)[1]
    assert line.startswith("no pixel in any of 2 masks is of water: without a score; check the colours")
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", np.full((3, 24, 32), 7, np.uint8))
    colours = {"field": [255, 0, 0], "water": [0, 0, 255]}
    hint = (
        r"1536 of 1536 labelled .*\(100 %\).* 7,7,7 .* no pixel of 2 of 2 masks \(a, b\) has a class's colour"
    )
    with pytest.raises(UserError, match=hint):
        prepare(folder, classes=colours)


@pytest.mark.parametrize("colour", [(7, 7, 7), (7, 8, 9)])
@pytest.mark.parametrize(
    ("known", "nodata", "percent"), [(16, 0, "50 %"), (15, 0, "53.1 %"), (1, 0, "96.9 %"), (3, 26, "50 %")]
)
def test_the_share_of_the_labelled_pixels_outside_the_palette_is_said_and_most_are_an_error(
    folder: Path, colour: Sequence[int], known: int, nodata: int, percent: str
) -> None:
    mask = np.repeat(np.array(colour, np.uint8), 24 * 32).reshape(3, 24, 32)
    mask[:, :, : known + nodata] = 0
    mask[0, :, :known] = 255
    for name in ("a", "b"):
        write(folder / f"masks/{name}.tif", mask)
    facts = {"classes": {"field": [255, 0, 0]}, "ignored": {"nodata": [0, 0, 0]}}
    (folder / "tags.csv").write_text("image,tags\na,field\nb,field\n")
    outside, labelled = 48 * (32 - known - nodata), 48 * (32 - nodata)
    hint = rf"^{outside} of {labelled} labelled .* \({percent}\) .*outside the palette"
    typed = rf"'dataset.ignored=\{{none: \[{', '.join(map(str, colour))}\]\}}'"
    if percent == "50 %":
        assert re.search(f"{hint}.*{typed}", prepare(folder, **facts)[1][0])
        return
    grey = r"type 'dataset.indices=\{field: VALUE\}'; " if len(set(colour)) == 1 else "px\\); "
    with pytest.raises(UserError, match=rf"{hint}.*{grey}correct 'dataset.classes=.*{typed}"):
        prepare(folder, **facts)


def test_tags_that_contradict_masks_are_counted(folder: Path) -> None:
    write(folder / "masks/a.tif", HALVES.astype(np.uint8))
    write(folder / "masks/b.tif", np.ones((24, 32), np.uint8))
    (folder / "tags.csv").write_text("image,tags\na,field\nb,field;water\n")
    index, _ = prepare(folder)
    assert list(contradictions(read_tags(folder / "tags.csv", index), SceneReader(index))) == [
        "1 of 2 tiles are tagged field, and their masks have none: b_00000_00000",
        "1 of 2 tiles have water in their masks, and no such tag: a_00000_00000",
    ]
