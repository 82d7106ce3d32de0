from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from ome.errors import UserError
from ome.geo.raster import (
    open_class_map,
    open_image,
    read_class_map,
    read_grid,
    read_png,
    write_grey_png,
    write_palette_png,
)

NAMES = ("impervious surface", "building", "low vegetation")
COLOURS = ((255, 255, 255), (0, 0, 255), (0, 255, 255))
PALETTE = [value for colour in COLOURS for value in colour] + [0] * (768 - 9)
CRS_TEXT, TRANSFORM = "EPSG:25833", from_origin(366676.4, 5807512.7, 0.05, 0.05)


def write_class_map(
    path: Path, mask: np.ndarray, crs: CRS | None = None, transform: Affine | None = None
) -> None:
    with open_class_map(path, mask.shape, NAMES, COLOURS, crs=crs, transform=transform) as writer:
        writer.write(0, mask)


def random_mask(height: int = 300, width: int = 275) -> np.ndarray:
    mask = np.random.default_rng(0).integers(0, 3, (height, width)).astype(np.uint8)
    mask[:10] = 255
    return mask


def test_a_class_map_keeps_classes_colours_names_and_place(tmp_path: Path) -> None:
    path, mask = tmp_path / "maps" / "scene.tif", random_mask()
    write_class_map(path, mask, CRS.from_string(CRS_TEXT), TRANSFORM)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.crs.to_epsg() == 25833
        assert dataset.transform.almost_equals(TRANSFORM)
        assert dataset.nodata == 255
        assert dataset.block_shapes == [(256, 256)]
        assert dataset.compression.name == "deflate"
        assert [dataset.colormap(1)[index][:3] for index in range(3)] == list(COLOURS)
        assert dataset.colormap(1)[255][:3] == (0, 0, 0)
        assert [dataset.tags(1)[f"CLASS_{index}"] for index in range(3)] == list(NAMES)
    np.testing.assert_array_equal(read_class_map(path), mask)
    assert read_grid(path) == (CRS.from_epsg(25833), TRANSFORM)
    assert [file.name for file in path.parent.iterdir()] == ["scene.tif"], "a side file would lose its name"


def test_rows_written_one_block_at_a_time_make_the_same_map(tmp_path: Path) -> None:
    mask = random_mask(700)
    grid = {"crs": None, "transform": None}
    with open_class_map(tmp_path / "rows.tif", mask.shape, NAMES, COLOURS, **grid) as writer:
        for row in range(0, 700, 90):
            writer.write(row, mask[row : row + 90])
    np.testing.assert_array_equal(read_class_map(tmp_path / "rows.tif"), mask)
    with open_class_map(tmp_path / "rows.tif", mask.shape, NAMES, COLOURS, **grid) as writer:
        with pytest.raises(ValueError, match=r"rows 650\.\.739 of width 275 do not fit a map of 700 x 275"):
            writer.write(650, mask[:90])
        writer.write(0, mask)


def test_a_map_given_up_half_way_leaves_nothing(tmp_path: Path) -> None:
    def give_up() -> None:
        with open_class_map(
            tmp_path / "map.tif", (512, 275), NAMES, COLOURS, crs=None, transform=None
        ) as writer:
            writer.write(0, random_mask())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert list(tmp_path.iterdir()) == []


def test_windows_of_an_image_without_georeference(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    with open_image(tmp_path / "photo.png", channels=(3, 1)) as image:
        assert (image.height, image.width, image.crs) == (40, 60, None)
        np.testing.assert_array_equal(image.read(5, 7, 10, 20), pixels[5:15, 7:27][..., [2, 0]])


def test_images_that_cannot_be_used_are_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tif does not exist"), open_image(tmp_path / "none.tif"):
        pass
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(UserError, match=r"text\.tif is no raster"), open_image(tmp_path / "text.tif"):
        pass
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.tif")
    with (
        pytest.raises(UserError, match=r"deep\.tif has pixels of type uint16"),
        open_image(tmp_path / "deep.tif"),
    ):
        pass
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "grey.tif")
    with (
        pytest.raises(UserError, match=r"has bands 1\.\.1, asked for were"),
        open_image(tmp_path / "grey.tif"),
    ):
        pass


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    write_class_map(path, random_mask(900, 900))
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


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_png_is_named(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "tile.png"
    write_grey_png(path, np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=r"tile\.png is not a whole PNG"):
        read_png(path)


def test_pngs_that_are_no_masks_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        read_png(tmp_path / "none.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo\.png has pixels of mode RGB"):
        read_png(tmp_path / "photo.png")


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_palette_png(tmp_path / f"{name}.png", random_mask(), PALETTE)
        write_class_map(tmp_path / f"{name}.tif", random_mask())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
