import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

from ome.data.byte_image import open_scene
from ome.data.folder import image_names
from ome.data.unmarked import unmarked
from ome.errors import UserError
from ome.geo import lossy
from ome.geo.mosaic import Mosaic
from ome.geo.raster import read_png, write_grey_png, write_palette_png
from ome.geo.reader import Raster
from ome.geo.scene_files import scene_files
from ome.geo.virtual_raster import VirtualRaster
from tests.archives import read_class_map

COLOURS = ((255, 255, 255), (0, 0, 255), (0, 255, 255))
PALETTE = [value for colour in COLOURS for value in colour] + [0] * (768 - 9)
CRS_TEXT, TRANSFORM = "EPSG:25833", from_origin(366676.4, 5807512.7, 0.05, 0.05)


def random_mask(height: int = 300, width: int = 275) -> np.ndarray:
    mask = np.random.default_rng(0).integers(0, 3, (height, width)).astype(np.uint8)
    mask[:10] = 255
    return mask


def write(path: Path, pixels: np.ndarray, **more: object) -> Path:
    bands, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    path.parent.mkdir(exist_ok=True)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile | {"crs": CRS_TEXT, "transform": TRANSFORM} | more) as dataset,
    ):
        dataset.write(pixels)
    return path


def noise(bands: int, depth: str, height: int = 40, width: int = 60) -> np.ndarray:
    top = 256 if depth == "uint8" else 4000
    return np.random.default_rng(bands).integers(1, top, (bands, height, width)).astype(depth)


@pytest.mark.parametrize("depth", ["float32", "float64", "int16", "int8", "uint32", "int32"])
def test_values_of_another_depth_come_with_a_way_that_keeps_them(tmp_path: Path, depth: str) -> None:
    """Without limits, `-scale` stretches each file by its own values, to 0..255, and loses nodata."""
    limits = "-ot UInt16 -scale MIN MAX 1 65535 -a_nodata 0 IN OUT, where MIN and MAX are the same for all"
    with (
        Raster(write(tmp_path / "image.tif", noise(1, depth))) as raster,
        pytest.raises(UserError, match=f"holds {depth} values, only .*{limits} files") as refused,
    ):
        raster.require()
    plain = "-ot UInt16 IN OUT if all values but nodata are from 1 to 65535, otherwise"
    assert (plain in str(refused.value)) == ("int" in depth)


HOLE = (slice(5, 20), slice(10, 45))


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize("model", ["MINISWHITE", "palette", "MINISBLACK"])
def test_an_image_of_other_colours_than_its_values_is_refused(tmp_path: Path, depth: str, model: str) -> None:
    path = write(tmp_path / "image.tif", noise(1, depth), photometric=model)
    if model == "palette":
        with rasterio.open(path, "r+") as raster:
            raster.write_colormap(1, {value: (value, 0, 255 - value, 255) for value in range(256)})
    reason = {
        ("MINISWHITE", "uint8"): r"a negative, whose 0 is white .* -scale 0 255 255 0 IN OUT",
        ("MINISWHITE", "uint16"): r"a negative, whose 0 is white .* -scale 0 65535 65535 0 IN OUT",
        ("palette", "uint16"): "uint16 indices into a colour table, .*gdal_translate -ot Byte IN OUT",
    }.get((model, depth))
    refused = pytest.raises(UserError, match=f"image.tif holds {reason}") if reason else nullcontext()
    with Raster(path) as raster, refused:
        raster.require()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_the_largest_value_of_few_bits_is_white(tmp_path: Path, ending: str, bits: int) -> None:
    """Of an image, that is; a mask's values are class indices."""
    stored = np.random.default_rng(0).integers(0, 1 << bits, (1, 40, 64)).astype(np.uint8)
    stored[0, 0, 0] = (1 << bits) - 1
    path = tmp_path / f"scene.{ending}"
    write(tmp_path / "scene.tif", stored, nbits=bits)
    if (ending, bits) == ("png", 1):
        Image.fromarray(stored[0] > 0).save(path)  # GDAL would give it a colour table
    elif ending == "png":
        rasterio.shutil.copy(tmp_path / "scene.tif", path, driver="PNG")
    with rasterio.open(path) as raster:
        assert raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8") == str(bits)
    with Raster(path) as image:
        expected = (stored * np.uint8(255 // ((1 << bits) - 1))).repeat(image.bands, axis=0)
        np.testing.assert_array_equal(image.read(3, 2, 30, 50), expected[:, 3:33, 2:52])
        np.testing.assert_array_equal(image.reduced(0, 0, 40, 64, (40, 64)), expected)
        np.testing.assert_array_equal(image.values(0, 0, 40, 64), stored[0])


@pytest.mark.parametrize("nodata", [None, 3])
@pytest.mark.parametrize("others", [(ColorInterp.alpha,), (ColorInterp.undefined,)])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_a_colour_table_beside_opacity_is_applied(
    tmp_path: Path, others: tuple[ColorInterp, ...], depth: str, nodata: int | None
) -> None:
    indices = np.random.default_rng(0).integers(0, 4, (40, 60)).astype(depth)
    opacity = np.full((40, 60), 255, depth)
    opacity[HOLE] = 0
    path = write(tmp_path / "scene.tif", np.stack([indices, opacity]), photometric="PALETTE", nodata=nodata)
    table = np.array([(60 * value, 200 - 20 * value, 30) for value in range(4)], np.uint8)
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {value: (*map(int, colour), 255) for value, colour in enumerate(table)})
        raster.colorinterp = (ColorInterp.palette, *others)
    with Raster(path, channels=(1, 2, 3)) as image:
        if depth == "uint16" or others[0] != ColorInterp.alpha:
            with pytest.raises(UserError, match=r"scene\.tif holds (uint16 )?indices into a colour table"):
                image.require()
            return
        image.require()
        np.testing.assert_array_equal(image.read(0, 0, 40, 60), table[indices].transpose(2, 0, 1))
        np.testing.assert_array_equal(image.valid(0, 0, 40, 60), (opacity > 0) & (indices != nodata))
        assert (image.shown_bands, image.all_valid) == ((1, 2, 3), False)


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 3, 4, 5])
@pytest.mark.parametrize("kind", ["nodata", "typed", "mask", "opacity", "none"])
def test_what_was_not_measured_is_known_however_a_file_says_it(
    tmp_path: Path, kind: str, bands: int, depth: str
) -> None:
    pixels = noise(bands, depth)
    pixels[(slice(None), *HOLE)] = 0
    pixels[0, 30, 30] = 0  # dark in one band is measured
    expected = np.ones((40, 60), bool)
    expected[HOLE] = kind == "none"
    if bands == 1 and kind in {"nodata", "typed"}:
        expected[30, 30] = False
    path = tmp_path / "scene.tif"
    if kind == "opacity":
        full = np.where(expected, np.iinfo(depth).max, 0).astype(depth)
        write(path, np.concatenate([pixels, full[None]]))
        with rasterio.open(path, "r+") as dataset:
            dataset.colorinterp = (
                [ColorInterp.grey] + [ColorInterp.undefined] * (bands - 1) + [ColorInterp.alpha]
            )
    else:
        write(path, pixels, **({"nodata": 0} if kind == "nodata" else {}))
    if kind == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(expected)
    with Raster(path, nodata=0 if kind == "typed" else None) as raster:
        np.testing.assert_array_equal(raster.valid(0, 0, 40, 60), expected)
        np.testing.assert_array_equal(raster.valid(3, 8, 10, 12), expected[3:13, 8:20])
        assert raster.all_valid == (kind == "none")
        assert raster.shown_bands == tuple(range(1, bands + 1))
        np.testing.assert_array_equal(
            raster.read(2, 3, 30, 50, (bands, 1)), pixels[[bands - 1, 0], 2:32, 3:53]
        )


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_masks_of_each_band_tell_what_was_not_measured(tmp_path: Path, bands: int) -> None:
    path, masks = tmp_path / "scene.tif", np.full((bands, 40, 60), 255, np.uint8)
    masks[(slice(None), *HOLE)] = 0
    masks[0, 30, 30] = 0  # missing in one band
    flags = {f"INTERNAL_MASK_FLAGS_{band}": "0" for band in range(1, bands + 1)}
    write(path, noise(bands, "uint8"))
    write(tmp_path / "scene.tif.msk", masks)
    with rasterio.open(tmp_path / "scene.tif.msk", "r+") as dataset:
        dataset.update_tags(**flags)
    expected = np.ones((40, 60), bool)
    expected[HOLE] = False
    expected[30, 30] = bands > 1
    with Raster(path) as raster:
        np.testing.assert_array_equal(raster.valid(0, 0, 40, 60), expected)
        assert not raster.all_valid


def test_an_image_of_many_bands_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Raster(write(tmp_path / "scene.tif", noise(13, "uint16"))) as raster:
        assert raster.bands == 13
    assert not caplog.records


@pytest.mark.parametrize(
    ("sizes", "pages"),
    [
        ([(40, 60)] * 3, "3 pages, of 40 x 60 pixels"),
        ([(10, 15), (40, 60)], "2 pages, of 10 x 15 and 40 x 60 pixels"),
        ([(40, 60), (39, 60)], "2 pages, of 40 x 60 and 39 x 60 pixels"),
        ([(40, 60), (10, 60), (10, 15)], "2 pages, of 40 x 60 and 10 x 60 pixels"),
        ([(40, 60), (10, 15)], ""),
        ([(41, 61), (21, 31), (11, 16)], ""),
    ],
)
def test_pages_that_would_be_left_out_are_named(
    tmp_path: Path, sizes: list[tuple[int, int]], pages: str
) -> None:
    """A page of at most half the size is a preview; others may be bands, or the image itself."""
    first, *others = [Image.fromarray(np.full(size, 7, np.uint8)) for size in sizes]
    first.save(tmp_path / "scene.tif", save_all=True, append_images=others)
    match = rf"scene\.tif holds {pages}, and only the first"
    with pytest.raises(UserError, match=match) if pages else nullcontext():
        Raster(tmp_path / "scene.tif").close()


@pytest.mark.parametrize("kind", ["JPEG", "GTiff", "GTiff YCbCr", "GTiff WebP"])
@pytest.mark.parametrize("quality", [60, 75, 95])
def test_a_collar_that_loss_has_blurred_is_not_measured(tmp_path: Path, kind: str, quality: int) -> None:
    row, column = np.mgrid[:160, :160]
    collar: np.ndarray = column - 0.4 * row > 91  # along no block of JPEG
    pixels = np.random.default_rng(0).normal(180, 12, (3, 160, 160)).clip(0, 255).astype(np.uint8)
    pixels[:, collar] = 0
    pixels[:, 60:64, 20:30] = 5  # a shadow within the image is measured
    path = tmp_path / ("scene.jpg" if kind == "JPEG" else "scene.tif")
    if kind == "JPEG":
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path, quality=quality)
    elif "WebP" in kind:
        write(path, pixels, compress="WEBP", webp_level=quality, photometric="RGB")
    else:
        colours = kind.partition(" ")[2] or "RGB"
        write(path, pixels, compress="JPEG", jpeg_quality=quality, photometric=colours)
    with Raster(path, nodata=0) as raster:
        valid = raster.valid(0, 0, 160, 160)
        np.testing.assert_array_equal(raster.valid(70, 50, 60, 85), valid[70:130, 50:135])
        assert (raster.read(0, 0, 160, 160).max(axis=0) > 0)[collar].mean() > 0.01
    assert valid[collar].mean() < (0.05 if "WebP" in kind else 0.03)
    assert valid[~collar].mean() > 0.995


JPEG2000: dict[str, Any] = {"driver": "JP2OpenJPEG", "YCC": "NO"}


@pytest.mark.parametrize("quality", [10, 25])
@pytest.mark.parametrize("largest", [255, 4095, 10_000, 65_535])
@pytest.mark.parametrize("bands", [1, 3])
def test_a_collar_of_any_depth_that_loss_has_blurred_is_not_measured(
    tmp_path: Path, bands: int, largest: int, quality: int
) -> None:
    """A wavelet moves values of 16 bits by little and far into the collar, where few stay exact."""
    row, column = np.mgrid[:200, :200]
    collar: np.ndarray = column - 0.4 * row > 111
    smooth = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (200, 200, bands)), (0, 0), 2)
    smooth = (0.6 + 0.8 * smooth.reshape(200, 200, bands).transpose(2, 0, 1)).clip(0.2, 1)
    pixels = (smooth * largest).astype(np.uint8 if largest == 255 else np.uint16)
    pixels[:, collar] = 0
    pixels[:, 60:64, 20:30] = largest // 50  # a shadow within the image is measured
    path = write(tmp_path / "scene.jp2", pixels, QUALITY=str(quality), nodata=0, **JPEG2000)
    with Raster(path) as raster:
        valid = raster.valid(0, 0, 200, 200)
        np.testing.assert_array_equal(raster.valid(70, 50, 60, 85), valid[70:130, 50:135])
        assert (raster.read(0, 0, 200, 200).max(axis=0) > 0)[collar].mean() > 0.005
    assert valid[collar].mean() < 0.01
    assert valid[~collar].mean() > 0.99


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize("nodata", [0, 203])
def test_a_collar_within_the_error_of_lerc_is_not_measured(tmp_path: Path, depth: str, nodata: int) -> None:
    pixels = noise(3, depth).clip(40, 190)
    pixels[:, :, :21] = nodata
    path = write(tmp_path / "scene.tif", pixels, compress="LERC", MAX_Z_ERROR=5, nodata=nodata)
    with Raster(path) as raster:
        assert nodata == 0 or (raster.read(0, 0, 40, 60)[:, :, :21] != nodata).any()
        np.testing.assert_array_equal(raster.valid(0, 0, 40, 60), (pixels != nodata).any(axis=0))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scene.tif", {"compress": "WEBP", "webp_lossless": True, "photometric": "RGB"}),
        ("scene.tif", {"compress": "LERC", "MAX_Z_ERROR": 0}),
        ("scene.jp2", {"QUALITY": "100", "REVERSIBLE": "YES", **JPEG2000}),
    ],
)
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_lossless_compression_keeps_dark_pixels_beside_a_collar(
    tmp_path: Path, name: str, options: dict[str, Any], depth: str
) -> None:
    if depth == "uint16" and "webp_lossless" in options:
        pytest.skip("WebP has 8 bits")
    pixels = noise(3, depth)
    pixels[:, :, :20], pixels[:, :, 20:30] = 0, 3
    with Raster(write(tmp_path / name, pixels, **options), nodata=0) as raster:
        np.testing.assert_array_equal(raster.valid(0, 0, 40, 60), pixels.any(axis=0))


@pytest.mark.parametrize("nodata", [(0, 0, 0), (255, 254, 10), (-9999.0, 0, 0), (np.nan, 0, 0)])
def test_pixels_near_nodata_by_arithmetic(nodata: tuple[float, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 60, (3, 40, 30), dtype=np.uint8)
    pixels[:, :20] += 190
    away = np.abs(pixels - np.array(nodata)[:, None, None])
    for depth in ("uint8", "uint16"):  # a table for bytes, arithmetic for the others
        np.testing.assert_array_equal(lossy.near(pixels.astype(depth), nodata, 24), (away <= 24).all(axis=0))


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize("nodata", [-1, 0.5, 1 << 16, float("nan"), float("inf")])
def test_a_typed_value_that_no_pixel_can_have_is_refused(tmp_path: Path, nodata: float, depth: str) -> None:
    path = write(tmp_path / "scene.tif", noise(3, depth))
    match = rf"nodata=\S+ cannot be a pixel of .*scene\.tif, which holds {depth} values"
    with pytest.raises(UserError, match=match):
        Raster(path, nodata=nodata)


@pytest.mark.parametrize("depth", ["float32", "float64"])
def test_nan_is_no_measurement(tmp_path: Path, depth: str) -> None:
    pixels = noise(1, "uint8").astype(depth)
    pixels[0, :7] = np.nan
    with Raster(write(tmp_path / "mask.tif", pixels)) as raster:
        np.testing.assert_array_equal(raster.valid(0, 0, 40, 60), np.isfinite(pixels[0]))
        assert not raster.all_valid


def test_an_infrared_band_that_is_called_opacity_stays_a_band(tmp_path: Path) -> None:
    path = write(tmp_path / "scene.tif", noise(4, "uint8"), photometric="RGB", alpha="YES")
    with Raster(path) as raster:
        assert (raster.opacity, raster.mislabelled_opacity) == (None, 4)
        assert raster.shown_bands == (1, 2, 3, 4)
        assert raster.all_valid


def collar(kind: str, depth: str) -> tuple[np.ndarray, np.ndarray]:
    """An image and a fourth band of it, whose first quarter of columns is 0."""
    image, top = noise(3, depth, 64, 64), np.iinfo(depth).max
    band = np.full((64, 64), top, depth)
    band[:, :16] = 0
    if "blank" in kind:
        image[:, :, :16] = 0
    if "soft" in kind:
        band[:, 16:24] = np.linspace(0.1 * top, 0.9 * top, 8)
    if "half" in kind:
        band[:, 16:40] = np.linspace(0.1 * top, 0.9 * top, 24)
    if "infrared" in kind:
        band[:, 16:] = noise(4, depth, 64, 48)[3]
    if "water" in kind:
        band[:, 16:] = 0
    if "fringe" in kind:
        band[:, :62], image[:, :, :62] = 0, 0
    return image, band


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("kind", "is_opacity"),
    [
        *((kind, True) for kind in ("hard", "soft", "blank, soft", "blank, half soft", "blank, fringe")),
        *((kind, False) for kind in ("infrared", "blank, infrared", "water")),
    ],
)
def test_opacity_may_have_soft_edges(tmp_path: Path, kind: str, depth: str, is_opacity: bool) -> None:
    image, band = collar(kind, depth)
    path = write(tmp_path / "scene.tif", np.concatenate([image, band[None]]), photometric="RGB", alpha="YES")
    with Raster(path) as raster:
        assert raster.opacity == (4 if is_opacity else None)
        assert raster.mislabelled_opacity == (None if is_opacity else 4)
        np.testing.assert_array_equal(raster.valid(0, 0, 64, 64), (band > 0) | (not is_opacity))


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize("driver", ["GTiff", "VRT", "folder"])
@pytest.mark.parametrize(
    ("kind", "is_opacity"),
    [
        ("blank", True),
        *((kind, False) for kind in ("hard", "blank, soft", "blank, infrared", "full", "empty", "labelled")),
    ],
)
def test_opacity_without_a_label_is_pointed_out(
    tmp_path: Path, kind: str, is_opacity: bool, driver: str, depth: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays an image band: the values are no proof."""
    image, band = collar("blank" if kind == "labelled" else kind, depth)
    if kind in {"full", "empty"}:
        image[:], band[:] = 0, np.iinfo(depth).max if kind == "full" else 0
    path = write(
        tmp_path / "folder" / "scene.tif",
        np.concatenate([image, band[None]]),
        photometric="RGB",
        alpha="YES" if kind == "labelled" else "NO",
    )
    if driver == "VRT":
        rasterio.shutil.copy(path, path.with_suffix(".vrt"), driver="VRT")
        path = path.with_suffix(".vrt")
    with open_scene(path.parent if driver == "folder" else path, (1, 2, 3)) as scene:
        assert scene.valid(0, 0, 64, 64).all() == (kind != "labelled")
    printed = " ".join(capsys.readouterr().out.split())
    assert (f"{path.name if driver != 'folder' else 'folder'} has opacity in band 4" in printed) == is_opacity
    assert ("gdal_edit.py -colorinterp_4 alpha FILE" in printed) == is_opacity


@pytest.mark.parametrize("typed", [None, 0])
@pytest.mark.parametrize("driver", ["GTiff", "VRT", "folder"])
@pytest.mark.parametrize(
    ("depth", "nodata"), [("uint8", -9999), ("uint8", 256), ("uint16", -1), ("int16", 1e5)]
)
def test_a_declared_nodata_value_that_no_pixel_can_have_is_pointed_out(
    tmp_path: Path, driver: str, depth: str, nodata: float, typed: int | None
) -> None:
    write(tmp_path / "plain" / "scene.tif", noise(3, depth))
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "scene.vrt"
    rasterio.shutil.copy(tmp_path / "plain" / "scene.tif", path, driver="VRT")
    band = re.compile(r"(<VRTRasterBand[^>]*>)")
    path.write_text(band.sub(rf"\1<NoDataValue>{nodata}</NoDataValue>", path.read_text()))
    if driver != "VRT":
        rasterio.shutil.copy(path, path.with_suffix(".tif"), driver="GTiff")
    opened = {
        "GTiff": lambda: Raster(path.with_suffix(".tif"), nodata=typed),
        "VRT": lambda: VirtualRaster(path, nodata=typed),
        "folder": lambda: Mosaic([path.with_suffix(".tif")], "folder", nodata=typed),
    }
    if driver == "folder" and depth == "int16":
        pytest.skip("a folder of images")
    with opened[driver]() as raster:
        assert raster.nodata == (typed,) * 3
        line = f"declares nodata={nodata:g}, which no pixel of {depth} can have"
        assert [line in remark for remark in unmarked(raster)] == ([True] if typed is None else [])


@pytest.mark.parametrize("text", [b"\xe9", b"\x01", b"\xff\xfe"])
@pytest.mark.parametrize("place", ["file", "band"])
def test_text_of_any_bytes_in_a_file_does_not_matter(tmp_path: Path, place: str, text: bytes) -> None:
    """Latin-1, for example, in what a camera or an agency wrote."""
    path = write(tmp_path / "scene.tif", noise(3, "uint8"), photometric="RGB")
    with rasterio.open(path, "r+") as raster:
        if place == "file":
            raster.update_tags(TIFFTAG_IMAGEDESCRIPTION="place" + "_" * len(text))
        else:
            raster.set_band_description(1, "place" + "_" * len(text))
    path.write_bytes(path.read_bytes().replace(b"place" + b"_" * len(text), b"place" + text))
    with Raster(path) as raster:
        assert (unmarked(raster), raster.band_colours) == ([], ("red", "green", "blue"))


def test_a_tile_of_nothing_and_one_whose_opacity_was_never_written(tmp_path: Path) -> None:
    for name, image in (("nothing", np.zeros((3, 64, 64), np.uint8)), ("image", noise(3, "uint8", 64, 64))):
        pixels = np.concatenate([image, np.zeros((1, 64, 64), np.uint8)])
        path = write(tmp_path / f"{name}.tif", pixels, photometric="RGB", alpha="YES")
        with Raster(path) as raster:
            assert raster.valid(0, 0, 64, 64).all() == (name == "image")


def test_infrared_and_opacity_that_are_both_called_opacity(tmp_path: Path) -> None:
    image, band = collar("soft", "uint8")
    pixels = np.concatenate([image, noise(4, "uint8", 64, 64)[3:], band[None]])
    path = write(tmp_path / "scene.tif", pixels, photometric="RGB")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:3], ColorInterp.alpha, ColorInterp.alpha]
    with Raster(path) as raster:
        assert (raster.opacity, raster.mislabelled_opacity, raster.shown_bands) == (5, 4, (1, 2, 3, 4))


@pytest.mark.parametrize("opacities", [(0, 255, 255), (0, 0, 255), (0, 128, 255), (255, 255, 255)])
def test_transparent_colours_of_a_png(tmp_path: Path, opacities: tuple[int, ...]) -> None:
    places = np.random.default_rng(0).integers(0, 3, (40, 60)).astype(np.uint8)
    image = Image.fromarray(places)
    image.putpalette(PALETTE)
    image.save(tmp_path / "scene.png", transparency=bytes(opacities))
    expected = np.array(opacities)[places] > 0
    with Raster(tmp_path / "scene.png") as raster:
        np.testing.assert_array_equal(raster.valid(0, 0, 40, 60), expected)
        assert raster.all_valid == expected.all()


def test_the_place_of_a_map_and_its_values(tmp_path: Path) -> None:
    mask = random_mask()
    path = write(tmp_path / "map.tif", mask[None], nodata=255)
    np.testing.assert_array_equal(read_class_map(path), mask)
    with Raster(path) as raster:
        assert (raster.grid.crs, raster.grid.transform) == (CRS.from_epsg(25833), TRANSFORM)


def test_windows_of_an_image_without_georeference(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    with Raster(tmp_path / "photo.png") as image:
        assert (image.grid.height, image.grid.width, image.grid.crs) == (40, 60, None)
        np.testing.assert_array_equal(
            image.read(5, 7, 10, 20, (3, 1)), pixels[5:15, 7:27, [2, 0]].transpose(2, 0, 1)
        )


def test_files_that_cannot_be_used_are_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tif does not exist: check the path"):
        Raster(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("a text")
    with pytest.raises(UserError, match=r"text\.tif is damaged or not a raster \(GTiff, PNG, JPEG"):
        Raster(tmp_path / "text.tif")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=r"deep\.tif holds uint16 values, only uint8 .* -ot Byte IN OUT, if"):
        read_class_map(tmp_path / "deep.tif")
    write(tmp_path / "points.tif", noise(1, "uint8"), transform=Affine.identity())
    with rasterio.open(tmp_path / "points.tif", "r+") as dataset:
        points = [GroundControlPoint(row, column, column, -row) for row, column in ((0, 0), (9, 0), (0, 9))]
        dataset.gcps = points, CRS.from_epsg(4326)
    with pytest.raises(UserError, match=r"placed by ground control points: warp it"):
        Raster(tmp_path / "points.tif")


def test_pixels_of_size_0_and_rational_polynomials_are_no_grid(tmp_path: Path) -> None:
    for number in (0, float("inf"), float("nan")):
        place = Affine(number, 0, 500000, 0, 0 if number == 0 else -10, 5800000 + number)
        path = write(tmp_path / "flat.tif", noise(1, "uint8"), transform=place)
        with pytest.raises(UserError, match=r"flat\.tif has pixels of size 0, or .* gdal_edit -a_ullr"):
            Raster(path)
    line = [0.0, 1.0, *[0.0] * 18]
    model = RPC(0, 1, 0, 1, line, line, 0, 1, 0, 1, line, line, 0, 1)
    path = write(tmp_path / "rpc.tif", noise(1, "uint8"), crs=None, transform=Affine.identity(), rpcs=model)
    with pytest.raises(UserError, match=r"rpc\.tif is placed by rational polynomials .* gdalwarp -rpc"):
        Raster(path)
    write(path, noise(1, "uint8"), rpcs=model)
    Raster(path).close()


@pytest.mark.parametrize("named", ["VRT", "WMS"])
def test_a_description_of_other_files_is_not_opened(tmp_path: Path, named: str) -> None:
    write(tmp_path / "secret.tif", noise(1, "uint8"))
    source = f"<SourceFilename>{tmp_path}/secret.tif</SourceFilename><SourceBand>1</SourceBand>"
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource></VRTRasterBand>'
    texts = {
        "VRT": f'<VRTDataset rasterXSize="60" rasterYSize="40">{band}</VRTDataset>',
        "WMS": '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/x</ServerUrl></Service></GDAL_WMS>',
    }
    (tmp_path / "scene.tif").write_text(texts[named])
    with pytest.raises(UserError, match="is damaged or not a raster"):
        Raster(tmp_path / "scene.tif")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{outside}/far.tif", "outside its folder: type stage.predict.allow_external=true"),
        ("../far.tif", "outside its folder"),
        ("/vsicurl/http://127.0.0.1:9/a.tif", "is not a file"),
        ("other.vrt", "reads another virtual raster"),
        ("text.tif", "is damaged or not a raster"),
    ],
)
def test_a_virtual_raster_reads_what_lies_beside_it(tmp_path: Path, source: str, message: str) -> None:
    folder = tmp_path / "scene"
    near = write(folder / "near.tif", noise(3, "uint8"))
    write(tmp_path / "far.tif", noise(3, "uint8"))
    (folder / "text.tif").write_text("a text")
    (folder / "other.vrt").write_text("<VRTDataset/>")

    def describe(name: str) -> Path:
        relative = int(not name.startswith("/"))
        bands = "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
            f'<SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
            for band in (1, 2, 3)
        )
        path = folder / "scene.vrt"
        path.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="40">{bands}</VRTDataset>')
        return path

    with open_scene(describe("near.tif"), (1, 2, 3)) as scene, Raster(near) as raster:
        np.testing.assert_array_equal(scene.read(0, 0, 40, 60), raster.read(0, 0, 40, 60).transpose(1, 2, 0))
    with pytest.raises(UserError, match=message), open_scene(describe(source.format(outside=tmp_path)), (1,)):
        pass
    with open_scene(describe("../far.tif"), (1,), allow_external=True):
        pass


@pytest.mark.parametrize("encoding", ["klingon", "shift_jis"])
def test_a_description_in_an_unknown_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    (tmp_path / "scene.vrt").write_text(f"{head}<VRTDataset/>")
    with pytest.raises(UserError, match=r"scene\.vrt is not a virtual raster"):
        open_scene(tmp_path / "scene.vrt", (1,)).__enter__()
    image = write(tmp_path / "scene.tif", noise(1, "uint8"))
    image.with_name("scene.tif.aux.xml").write_text(f"{head}<PAMDataset/>")
    assert image.with_name("scene.tif.aux.xml") in scene_files(image)  # it may mean anything


OUTSIDE = "<SourceFilename>{outside}/far.tif</SourceFilename>"
BAND = '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{}<SourceBand>1</SourceBand></SimpleSource>{}'


@pytest.mark.parametrize(
    "text",
    [
        BAND.format(OUTSIDE.lower(), ""),
        BAND.format(OUTSIDE.replace("F", "f"), ""),
        BAND.format('<SourceFilename relativetovrt="01">../far.tif</SourceFilename>', ""),
        BAND.format("<SourceFilename>&a;</SourceFilename>", ""),
        BAND.format(OUTSIDE, "").replace(
            "SimpleSource>", "SimpleSource SourceFilename='{outside}/far.tif'>", 1
        ),
        BAND.format("", "<SourceDataset>{outside}/far.tif</SourceDataset>"),
        BAND.format("", "<sourcedataset>{outside}/far.tif</sourcedataset>"),
        BAND.format("", "<PixelFunctionCode>import os</PixelFunctionCode>"),
        BAND.format("", "<AnythingNew>{outside}/far.tif</AnythingNew>"),
        BAND.format("", "").replace('band="1"', 'band="1" SUBCLASS="VRTDerivedRasterBand"'),
        BAND.format(
            "<SourceFilename>{inside}/near.tif</SourceFilename>",
            '<Metadata domain="Overviews"><MDI key="OVERVIEW_FILE">{outside}/far.tif</MDI></Metadata>',
        ),
    ],
)
def test_a_virtual_raster_names_files_in_no_other_way(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "scene"
    write(folder / "near.tif", noise(1, "uint8"))
    write(tmp_path / "far.tif", noise(1, "uint8"))
    content = text.format(outside=tmp_path, inside=folder)
    path = folder / "scene.vrt"
    path.write_text(
        f'<!DOCTYPE x [<!ENTITY a "{folder}/near.tif">]>' * ("&a;" in content)
        + f'<VRTDataset rasterXSize="60" rasterYSize="40">{content}</VRTRasterBand></VRTDataset>'
    )
    with (
        pytest.raises(UserError, match=r"outside its folder|more than references|not a virtual raster"),
        open_scene(path, (1,)),
    ):
        pass


def test_virtual_rasters_that_gdal_writes_are_read(tmp_path: Path) -> None:
    near = write(tmp_path / "near.tif", noise(3, "uint8"), nodata=0, photometric="RGB")
    with rasterio.open(near, "r+") as dataset:
        dataset.update_tags(1, note="a")
        dataset.descriptions, dataset.scales = ("red", "green", "blue"), (2, 2, 2)
    rasterio.shutil.copy(near, tmp_path / "copy.vrt", driver="VRT")
    with open_scene(tmp_path / "copy.vrt", (1, 2, 3)) as scene, Raster(near) as raster:
        np.testing.assert_array_equal(scene.read(0, 0, 40, 60), raster.read(0, 0, 40, 60).transpose(1, 2, 0))


@pytest.mark.parametrize("kind", [".msk", ".OVR", ".ovr.msk", ".aux.xml", "tag"])
def test_sidecars_make_gdal_read_no_other_file(tmp_path: Path, kind: str) -> None:
    far = write(tmp_path / "far.tif", np.full((1, 256, 256), 77, np.uint8))
    path = write(tmp_path / "in/scene.tif", noise(1, "uint8", 512, 512))
    sidecar = path.with_name(path.name + kind)
    named = f'<MDI key="OVERVIEW_FILE">{far}</MDI>'
    if kind == "tag":
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(far))
    elif kind == ".aux.xml":
        sidecar.write_text(f'<PAMDataset><Metadata domain="OVERVIEWS">{named}</Metadata></PAMDataset>')
    else:
        if kind == ".ovr.msk":
            write(path.with_name("scene.tif.ovr"), noise(1, "uint8", 256, 256))
        band = BAND.format(f"<SourceFilename>{far}</SourceFilename>", "")
        sidecar.write_text(
            f'<VRTDataset rasterXSize="256" rasterYSize="256">{band}</VRTRasterBand></VRTDataset>'
        )
    with pytest.raises(
        UserError, match=r"scene\.tif.* (is damaged or not a GeoTIFF: delete|takes its overviews from)"
    ):
        Raster(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("ending", [".msk", ".MSK", ".ovr", ".aux.xml", "world", "wld"])
def test_a_sidecar_on_a_disk_that_is_not_mounted_is_not_ignored(
    tmp_path: Path, suffix: str, ending: str
) -> None:
    """GDAL reads the image without it: every pixel would be valid, or the image nowhere."""
    path = tmp_path / f"Scene{suffix}"
    Image.fromarray(noise(1, "uint8", 64, 64)[0]).save(path)
    world = f"Scene.{suffix[1]}{suffix[-1]}w"
    link = path.with_name({"world": world, "wld": "Scene.wld"}.get(ending, path.name + ending))
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{link.name} is a link to a file that does not exist: restore"):
        Raster(path)


def test_sidecars_that_gdal_writes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    Image.fromarray(noise(1, "uint8", 512, 512)[0]).save(path)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path) as dataset:
        profile = {**dataset.profile, "driver": "GTiff"}
        with rasterio.open(tmp_path / "mask.tif", "w", **profile) as other:
            other.write_mask(np.arange(512)[None].repeat(512, 0) >= 100)
    (tmp_path / "mask.tif.msk").rename(tmp_path / "scene.png.msk")
    with Raster(path) as raster:
        assert raster.valid(0, 0, 512, 512).mean() == 412 / 512


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_pixels_that_a_file_cut_short_lost_are_not_filled_up(tmp_path: Path, suffix: str) -> None:
    pixels = noise(3, "uint8", 300, 300)
    path = tmp_path / f"scene{suffix}"
    if suffix == ".tif":
        write(path, pixels, compress="JPEG", photometric="YCBCR", tiled=True, blockxsize=304, blockysize=304)
        with rasterio.open(path) as dataset:
            at, size = (
                int(dataset.get_tag_item(f"BLOCK_{item}_0_0", "TIFF", bidx=1)) for item in ("OFFSET", "SIZE")
            )
        content = bytearray(path.read_bytes())
        # Half of its JPEG stream is lost; bytes of 0 would be codes of it.
        content[at + size // 2 : at + size] = np.random.default_rng(0).bytes(size - size // 2)
    else:
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
        content = bytearray(path.read_bytes()[: path.stat().st_size // 2])
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged at rows"), Raster(path) as raster:
        raster.read(0, 0, 300, 300)


@pytest.mark.parametrize("lost", ["half", "end is 0", "end is missing"])
@pytest.mark.parametrize("codec", ["JP2", "J2K"])
def test_a_jpeg_2000_without_its_end_is_damaged(tmp_path: Path, codec: str, lost: str) -> None:
    path = tmp_path / "scene.jp2"
    pixels = noise(3, "uint8", 256, 256)
    profile = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES", "CODEC": codec}
    write(path, pixels, crs=None, transform=Affine.identity(), **profile)
    with Raster(path) as raster:
        np.testing.assert_array_equal(raster.read(0, 0, 256, 256), pixels)
    content = path.read_bytes()
    length = len(content) // 2 if lost == "half" else len(content) - 1000
    path.write_bytes(content[:length] + bytes(1000 if lost == "end is 0" else 0))
    with pytest.raises(UserError, match=r"scene\.jp2 is damaged"), Raster(path) as raster:
        raster.read(0, 0, 256, 256)


def test_a_format_whose_damage_is_not_heard_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "scene.img", noise(3, "uint8"), driver="HFA", COMPRESSED="YES")
    with pytest.raises(UserError, match=r"not a raster .*; gdal_translate IN OUT writes other formats"):
        Raster(tmp_path / "scene.img")


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("tiled", [True, False])
def test_blocks_that_were_never_written_are_no_data(tmp_path: Path, interleave: str, tiled: bool) -> None:
    size = {"blockxsize": 64, "blockysize": 64} if tiled else {"blockysize": 16}
    profile = {"driver": "GTiff", "count": 3, "height": 200, "width": 300, "dtype": "uint8", "crs": CRS_TEXT}
    path, pixels = tmp_path / "scene.tif", noise(3, "uint8", 64, 128 if tiled else 300)
    pixels[:, :5] = 0  # dark, but written
    more = {"SPARSE_OK": True, "interleave": interleave, "tiled": tiled, "transform": TRANSFORM, **size}
    with rasterio.open(path, "w", **profile, **more) as dataset:
        dataset.write(pixels, window=((64, 128), (64, 64 + pixels.shape[2]) if tiled else (0, 300)))
    expected = np.zeros((200, 300), bool)
    expected[64:128, 64:192] = True
    if not tiled:
        expected[64:128] = True
    with Raster(path) as raster:
        assert not raster.all_valid
        np.testing.assert_array_equal(raster.valid(0, 0, 200, 300), expected)
        np.testing.assert_array_equal(raster.valid(50, 60, 70, 90), expected[50:120, 60:150])


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    write(path, random_mask(900, 900)[None])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"map\.tif is damaged at rows 0\.\.899"):
        read_class_map(path)


def test_an_indexed_png_gives_indices_to_readers_and_colours_to_viewers(tmp_path: Path) -> None:
    path, mask = tmp_path / "tile.png", random_mask(32, 48)
    write_palette_png(path, mask, PALETTE)
    np.testing.assert_array_equal(read_png(path), mask)
    with Image.open(path) as image:
        colours = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(colours, np.array(PALETTE, np.uint8).reshape(256, 3)[mask])
    assert [file.name for file in tmp_path.iterdir()] == ["tile.png"]


def test_a_grey_png_keeps_every_level(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_grey_png(tmp_path / "weight.png", values)
    np.testing.assert_array_equal(read_png(tmp_path / "weight.png"), values)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_png_is_named(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "tile.png"
    write_grey_png(path, np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(UserError, match=r"tile\.png is damaged or incomplete"):
        read_png(path)


def test_pngs_that_are_not_masks_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        read_png(tmp_path / "none.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo\.png has pixels of mode RGB"):
        read_png(tmp_path / "photo.png")


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_palette_png(tmp_path / f"{name}.png", random_mask(), PALETTE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def virtual(path: Path, *sources: tuple[str, str, str], kind: str = "Simple", more: str = "") -> Path:
    """Writes a VRT of 64 x 96 pixels and 3 bands that read files, each from and to some pixels."""
    bands = ""
    for band in (1, 2, 3):
        bands += f'<VRTRasterBand dataType="Byte" band="{band}">'
        for file, read, placed in sources:
            rects = ""
            for tag, text in (("SrcRect", read), ("DstRect", placed)):
                names = zip(("xOff", "yOff", "xSize", "ySize"), text.split(), strict=False)
                values = " ".join(f'{name}="{value}"' for name, value in names)
                rects += f"<{tag} {values}/>" if text else ""
            bands += (
                f'<{kind}Source><SourceFilename relativeToVRT="1">{file}</SourceFilename>'
                f"<SourceBand>{band}</SourceBand>{rects}{more}</{kind}Source>"
            )
        bands += "</VRTRasterBand>"
    path.write_text(f'<VRTDataset rasterXSize="96" rasterYSize="64">{bands}</VRTDataset>')
    return path


def box(*sides: int) -> np.ndarray:
    """The pixels (64, 96) from a row and column to others."""
    inside = np.zeros((64, 96), bool)
    inside[sides[0] : sides[2], sides[1] : sides[3]] = True
    return inside


FULL = "0 0 64 64"
VIRTUAL: dict[str, tuple[list[tuple[str, str, str]], str, str, np.ndarray]] = {
    "hole": (
        [("a.tif", "0 0 32 64", "0 0 32 64"), ("a.tif", "0 0 32 64", "64 0 32 64")],
        "Simple",
        "",
        ~box(0, 32, 64, 64),
    ),
    "sparse": ([("sparse.tif", FULL, "16 0 64 64")], "Simple", "", box(0, 16, 32, 48)),
    "part of it": ([("sparse.tif", "16 16 32 32", "0 0 32 32")], "Simple", "", box(0, 0, 16, 16)),
    "enlarged": ([("sparse.tif", "16 16 32 32", "0 0 64 64")], "Simple", "", box(0, 0, 32, 32)),
    "reduced": ([("sparse.tif", FULL, "0 0 32 32")], "Averaged", "", box(0, 0, 16, 16)),
    "beyond the file": ([("a.tif", "32 32 64 64", "0 0 64 64")], "Simple", "", box(0, 0, 32, 32)),
    "mask": ([("mask.tif", FULL, FULL)], "Simple", "", box(8, 0, 64, 64)),
    "above": ([("a.tif", FULL, FULL), ("mask.tif", FULL, FULL)], "Simple", "", box(8, 0, 64, 64)),
    "see-through": (
        [("a.tif", FULL, FULL), ("mask.tif", FULL, "32 0 64 64")],
        "Complex",
        "<UseMaskBand>true</UseMaskBand>",
        box(0, 0, 64, 64) | box(8, 32, 64, 96),
    ),
    "left out": ([("a.tif", FULL, FULL)], "Complex", "<NODATA>0</NODATA>", box(0, 0, 64, 64)),
    "no rectangles": ([("sparse.tif", "", "")], "Simple", "", box(0, 0, 32, 48)),
}


@pytest.mark.parametrize("case", VIRTUAL)
def test_what_a_virtual_raster_does_not_hold_is_not_measured(tmp_path: Path, case: str) -> None:
    sources, kind, more, expected = VIRTUAL[case]
    pixels = noise(3, "uint8", 64, 64)
    write(tmp_path / "a.tif", pixels)
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True}
    with rasterio.open(
        tmp_path / "sparse.tif", "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8", **tiles
    ) as sparse:
        sparse.write(pixels[:, :32, :32], window=Window(0, 0, 32, 32))
    write(tmp_path / "mask.tif", pixels)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "mask.tif", "r+") as masked:
        masked.write_mask(box(8, 0, 64, 64)[:, :64])
    path = virtual(tmp_path / "scene.vrt", *sources, kind=kind, more=more)
    with open_scene(path, (1, 2, 3)) as scene:
        assert not scene.all_valid
        np.testing.assert_array_equal(scene.valid(0, 0, 64, 96), expected)
        np.testing.assert_array_equal(scene.valid(5, 20, 40, 70), expected[5:45, 20:90])


@pytest.mark.parametrize("kind", ["collar", "transparent", "damaged"])
def test_a_virtual_raster_knows_what_its_file_knows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "scene.tif"
    pixels = noise(3, "uint8", 64, 64)
    if kind == "transparent":
        path = tmp_path / "scene.png"
        image = Image.fromarray(pixels[0] % 4)
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
        image.save(path, transparency=bytes([0, 0, 255, 255]))
    else:
        pixels[:, :30] = 0
        write(path, pixels, compress="JPEG", nodata=0 if kind == "collar" else None)
    rasterio.shutil.copy(path, tmp_path / "scene.vrt", driver="VRT")
    if kind == "damaged":
        with rasterio.open(path) as raster:
            place, size = (
                int(raster.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
            )
        content = bytearray(path.read_bytes())
        content[place + size // 2 : place + size] = bytes(size - size // 2)
        path.write_bytes(content)
    refused = pytest.raises(UserError, match="is damaged at") if kind == "damaged" else nullcontext()
    with open_scene(tmp_path / "scene.vrt", (1, 2, 3)) as scene, Raster(path) as raster, refused:
        scene.read(0, 0, 64, 64)
        expected = raster.valid(0, 0, 64, 64)
        assert 0.1 < expected.mean() < 0.9
        np.testing.assert_array_equal(scene.valid(0, 0, 64, 64), expected)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda link: link.symlink_to("/dev/zero")}[kind](path)
    with pytest.raises(UserError, match=r"a.tif is not a file"):
        Raster(path)
    if kind != "folder":
        with pytest.raises(UserError, match=r"a.vrt is not a file"):
            scene_files(path.rename(tmp_path / "a.vrt"))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "{}.aux.xml",
            "{}.aux",
            "{}.msk",
            "{}.MSK",
            "{}.ovr",
            "{}.OVR",
            "{}.AUX",
            "{stem}.wld",
            "{stem}.WLD",
        ),
        *("{stem}.tfw", "{stem}.pgw", "{stem}.jgw", "{stem}.tifw", "{stem}.tab", "{stem}.aux", "{stem}.xml"),
        *("{stem}.IMD", "{stem}.RPB", "{stem}_rpc.txt", "{stem}_RPC.TXT", "{stem}_MTL.txt", "{stem}.txt"),
        *("METADATA.DIM", "summary.txt", "{stem}.pvl", "{stem}_metadata.xml", "{stem}.pass"),
    ],
)
@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_a_pipe_beside_a_raster_is_not_waited_for(tmp_path: Path, name: str, suffix: str) -> None:
    raster = tmp_path / f"a.{suffix}"
    Image.new("RGB", (8, 8)).save(raster)
    pipe = tmp_path / name.format(raster.name, stem="a")
    os.mkfifo(pipe)
    with pytest.raises(
        UserError, match=rf"{pipe.name} is not a file, but a named pipe, .*: delete or rename"
    ):
        Raster(raster)
    pipe.unlink()
    pipe.mkdir()
    Raster(raster).close()
    pipe.rmdir()
    pipe.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=rf"{pipe.name} is not a file"):
        Raster(raster)


@pytest.mark.parametrize("text", ["", "abc", "1\n0\n0\n-1\n0\n", "0\n0\n0\n0\n5\n5\n", "1 0 0 -1 2", "\xff"])
@pytest.mark.parametrize("name", ["a.tfw", "a.TFW", "a.wld", "a.tifw"])
def test_a_world_file_that_gdal_ignores_is_named(tmp_path: Path, name: str, text: str) -> None:
    raster, world = tmp_path / "a.tif", tmp_path / name
    Image.new("RGB", (8, 8)).save(raster)
    world.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=rf"{name} (is not a world file: it must hold six|does not place a)"):
        Raster(raster)
    for whole in ("1\n0\n0\n1\n.5\n.5\n", "0,5\n0\n0\n-0,5\n7\n9\n"):
        world.write_text(whole)
        with Raster(raster) as opened:
            assert opened.grid.transform.a == (1 if "1" in whole else 0.5)
    world.write_text(text, encoding="latin-1")  # not needed: the image has a place
    write(raster, np.ones((3, 8, 8), np.uint8), transform=from_origin(5, 5, 2, 2))
    with Raster(raster) as opened:
        assert opened.grid.transform.a == 2


def test_overviews_of_another_image_in_an_aux_are_not_shown(tmp_path: Path) -> None:
    path, aux = tmp_path / "a.tif", tmp_path / "a.aux"
    write(path, np.full((3, 512, 512), 200, np.uint8))
    with rasterio.Env(USE_RRD="YES"), rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4])
    content = aux.read_bytes()
    write(path, np.full((3, 512, 512), 10, np.uint8))  # removes the sidecar
    aux.write_bytes(content)
    with Raster(path) as opened:
        assert opened.reduced(0, 0, 512, 512, (128, 128)).mean() == 10


@pytest.mark.parametrize("name", ["b.tif", "a.tif.aux.xml", "a.aux", "a.tfw", "a.tif.msk"])
def test_a_pipe_in_a_folder_of_images_is_named(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is not a file"):
        scene_files(tmp_path)
    if name == "b.tif":
        with pytest.raises(UserError, match=rf"{name} is not a file"):
            image_names(tmp_path, "dataset.raw")


@pytest.mark.parametrize(
    ("size", "flags", "line"),
    [
        ((12, 16), {"INTERNAL_MASK_FLAGS_1": "2"}, "is 16 x 12 pixels, and the image 32 x 24"),
        ((24, 32), {}, "has no tag"),
    ],
)
def test_a_mask_that_gdal_ignores_or_takes_for_damage_is_named(
    tmp_path: Path, size: tuple[int, int], flags: dict[str, str], line: str
) -> None:
    for name, shape in (("a.tif", (24, 32)), ("a.tif.msk", size)):
        with rasterio.open(
            tmp_path / name, "w", driver="GTiff", count=1, height=shape[0], width=shape[1], dtype="uint8"
        ) as written:
            written.write(np.full((1, *shape), 9, np.uint8))
            if name.endswith(".msk"):
                written.update_tags(**flags)
    with pytest.raises(UserError, match=rf"a.tif.msk {line}.*: correct it"):
        Raster(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["PROJ_LIB", "PROJ_DATA"])
def test_reference_systems_do_not_depend_on_a_folder_that_is_gone(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 2, "width": 2, "crs": "EPSG:32633"}
    with rasterio.open(path, "w", transform=rasterio.Affine(1, 0, 9, 0, -1, 9), **profile):
        pass
    code = f"import ome.geo.gdal, rasterio; print(rasterio.open({str(path)!r}).crs.to_epsg())"
    command, elsewhere = [sys.executable, "-c", code], os.environ | {name: str(tmp_path)}
    done = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=False)
    assert done.stdout == "32633\n", done.stderr


def test_nodata_of_some_bands_alone_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 2, "width": 2}
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.zeros((3, 2, 2), np.uint8))
    band = "<PAMRasterBand band='1'><NoDataValue>0</NoDataValue></PAMRasterBand>"
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    with Raster(path) as opened:
        assert unmarked(opened)[0].startswith(
            "declares nodata=0, for some of its bands alone: no pixel counts"
        )
