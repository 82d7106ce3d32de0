"""CAMs that were made elsewhere: read by tile and by scene, in every format, and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from torch.nn import functional as F

import ome
from ome.data.cams import cam_files, read_cams, write_cams
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.geo.grid import Grid
from ome.inference.user_cams import UserCams, read_maps, window_of
from ome.pipeline.layout import read_pseudo_label, read_tag_table
from tests.conftest import tiny

Run = Callable[..., DictConfig]
MAPS = np.random.default_rng(0).random((3, 5, 7), dtype=np.float32)
NAMES = ("building", "car", "tree")


def save(path: Path, maps: NDArray[Any]) -> None:
    """Writes maps in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, maps)
    elif path.suffix == ".npz":
        np.savez(path, maps=maps)
    else:
        count, height, width = maps.shape
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=maps.dtype
        ) as raster:
            raster.write(maps)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "bool"])
def test_maps_are_read_in_every_format(tmp_path: Path, suffix: str, dtype: str) -> None:
    if suffix == ".tif" and dtype in {"float16", "bool"}:
        pytest.skip("no type of GeoTIFF")
    maps = (MAPS * 200).astype(dtype)
    save(tmp_path / f"a{suffix}", maps)
    read = read_maps(tmp_path / f"a{suffix}", NAMES)
    assert read.flags.writeable  # torch warns of others
    assert read.dtype == np.float32
    assert np.allclose(read, maps)


@pytest.mark.parametrize("window", [(0, 0, 40, 56), (11, 3, 16, 20), (24, 36, 16, 20)])
def test_a_window_is_cut_from_the_resized_maps(window: tuple[int, int, int, int]) -> None:
    tile = Tile("a", *window)
    whole = F.interpolate(torch.from_numpy(MAPS)[None], size=(40, 56), mode="bilinear", align_corners=False)
    right = whole[0, :, tile.row : tile.row + tile.height, tile.column : tile.column + tile.width].numpy()
    assert np.allclose(window_of(MAPS, tile, (40, 56)), right, atol=1e-5)


@pytest.mark.parametrize(
    ("maps", "line"),
    [
        (
            MAPS[:2],
            (
                r"of the shape \(2, 5, 7\): give numbers of the shape \(3, height, width\), a map for each "
                "class in the order building, car, tree"
            ),
        ),
        (MAPS[0], r"of the shape \(5, 7\): give numbers"),
        (MAPS * np.inf, "a.npy holds nan, infinite or huge values"),
        (MAPS.astype("float64") * 1e300, "a.npy holds nan, infinite or huge values"),
        (MAPS.astype("U3"), "a.npy holds <U3 of the shape"),
        (np.array({"cam": MAPS}), r"a.npy cannot be read as one array of maps: .* not in a dict"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, maps: NDArray[Any], line: str) -> None:
    np.save(tmp_path / "a.npy", maps)
    with pytest.raises(UserError, match=line):
        read_maps(tmp_path / "a.npy", NAMES)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "cams.npz"])
def test_bits_that_flipped_are_one_line(tmp_path: Path, name: str) -> None:
    """Damage raises errors of zipfile, zlib, tokenize and numpy, by the place of the bit."""
    path, maps = tmp_path / name, np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    if name == "cams.npz":
        write_cams(path, maps, np.ones(3, np.uint8))
    elif path.suffix == ".npy":
        np.save(path, maps)
    else:
        np.savez_compressed(path, maps=maps)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), max(1, len(whole) // 400)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
        try:
            read_cams(path, 3) if name == "cams.npz" else read_maps(path, NAMES)
        except UserError:
            refused += 1
    assert refused > 9


@pytest.mark.parametrize(
    "name", ["b.npy", "b.npz", "b.tif", "a.tif.aux.xml", "a.tif.msk", "a.tfw", "x/a.npy"]
)
def test_a_pipe_among_maps_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tif").touch()
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{Path(name).name} is not a file, but a named pipe"):
        cam_files(tmp_path)


def test_damaged_doubled_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no maps: give \.npy, \.npz, "):
        cam_files(tmp_path)
    for suffix in (".npy", ".npz", ".tif"):
        save(tmp_path / suffix[1:] / f"a{suffix}", MAPS)
        path = tmp_path / suffix[1:] / f"a{suffix}"
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(UserError, match="cannot be read as one array of maps"):
            read_maps(path, 3)
    with pytest.raises(UserError, match=r"a\.npz are maps of one image: remove one of them"):
        cam_files(tmp_path)
    (tmp_path / "npy/a.npy").unlink()
    (tmp_path / "npz/a.npz").rename(tmp_path / "npy/a.npy")
    np.savez(tmp_path / "npy/a.npz", MAPS)
    (tmp_path / "npy/a.npz").replace(tmp_path / "npy/a.npy")
    with pytest.raises(UserError, match="cannot be read as one array of maps"):
        read_maps(tmp_path / "npy/a.npy", 3)
    np.savez(tmp_path / "two.npz", first=MAPS, second=MAPS)
    with pytest.raises(UserError, match="as one array of maps: it holds 2 arrays, first, second; save the"):
        read_maps(tmp_path / "two.npz", NAMES)


def test_pseudo_masks_of_own_maps_are_those_of_the_function(run_here: Run) -> None:
    settings = [*tiny(), "stage.until=pseudo", "name=own", "stage.pseudo.cams=mine"]
    run_here(*tiny(), "stage.until=labels", "name=own")
    index, mine, run = SceneIndex.read(next(Path("scenes").iterdir())), Path("mine"), Path("runs/own")
    table = read_tag_table(run / "labels", index).select("train", tagged=True)
    random = np.random.default_rng(0)
    for tile in table.tiles:
        save(mine / tile.scene / f"{tile.name}.npy", random.random((5, 8, 8), dtype=np.float32))
    run_here(*settings)
    assert not (run / "cam").exists()
    reader = SceneReader(index)
    for tile in table.tiles[:2]:
        maps = np.load(mine / tile.scene / f"{tile.name}.npy")
        right = ome.pseudo_label(reader.display(tile), maps, table.by_name[tile.name].tolist())
        mask, weight = read_pseudo_label(run / "pseudo", tile)
        assert (mask == right.mask).all()
        assert (weight == right.weight).all()

    changed = next(mine.rglob("*.npy"))
    changed.unlink()
    with pytest.raises(
        UserError, match=rf"stage.pseudo.cams=mine has no maps of 1 of \d+ tiles: add {changed.stem}"
    ):
        run_here(*settings)
    with pytest.raises(UserError, match=r"stage\.pseudo\.cams=camm is neither cam, affinity nor a folder"):
        run_here(*settings[:-1], "stage.pseudo.cams=camm")


def test_pseudo_masks_without_any_class_are_refused(run_here: Run) -> None:
    """A segmenter would train on them, with a loss of 0, to its last step."""
    run_here(*tiny(), "stage.until=labels", "name=own")
    header, *rows = Path("runs/own/labels/tags.csv").read_text().splitlines()
    cells = [[*header.split(",")[:7], *header.split(",")[-5:]]]
    cells += [[*row.split(",")[:7], "1", "1", "0", "0", "0"] for row in rows]
    Path("tags.csv").write_text("\n".join(map(",".join, cells)))
    Path("mine").mkdir()
    for scene in ("2_10", "2_11"):
        np.save(f"mine/{scene}.npy", np.zeros((5, 8, 8), np.float32))
    settings = [*tiny(), "name=own", "stage.pseudo.cams=mine", "dataset.tags=tags.csv"]
    with pytest.raises(UserError, match="no pixel of 32 pseudo masks has a class"):
        run_here(*settings, "stage.until=pseudo")


def test_bands_named_in_another_order_are_refused(tmp_path: Path) -> None:
    for order in (NAMES, NAMES[::-1], ("first", "second", "third")):
        path = tmp_path / f"{order[0]}.tif"
        save(path, MAPS)
        with rasterio.open(path, "r+") as raster:
            raster.descriptions = order
        if order[0] != "tree":
            assert np.array_equal(read_maps(path, NAMES), MAPS)
            continue
        with pytest.raises(
            UserError,
            match="has the bands tree, car, building, the classes are building, car, tree: give the order of "
            r"the bands as dataset.classes=\[tree,car,building\]",
        ):
            read_maps(path, NAMES)


@pytest.mark.parametrize(("shift", "asked"), [(0, False), (1, True)])
def test_maps_in_another_order_than_the_tags_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, shift: int, asked: bool
) -> None:
    tiles = tuple(Tile(f"t{number}", 0, 0, 20, 28) for number in range(30))
    tags = np.eye(3, dtype=np.uint8)[np.arange(30) % 3]
    table = TagTable(NAMES, tiles, tags, ("train",) * 30, np.ones(30, dtype=bool))
    for tile, one in zip(tiles, tags, strict=True):
        save(tmp_path / f"{tile.name}.npy", MAPS + np.roll(one, shift)[:, None, None])
    cams = UserCams(tmp_path, cast("SceneReader", None), table)  # only maps of whole scenes need a reader
    for some in (tiles, ()):
        cams.check(some)
    printed = " ".join(capsys.readouterr().out.split())
    question = "in only 0 of 30 tiles (10 by chance): are the maps in the order building, car, tree?"
    assert asked == (question in printed)
    assert asked == bool(printed)


@pytest.mark.parametrize(("constant", "tagged", "said"), [(-9, 2, 4), (-9, 1, 0), (0, 2, 0)])
def test_maps_that_leave_every_pixel_without_a_class_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], constant: int, tagged: int, said: int
) -> None:
    tiles = tuple(Tile(f"t{number}", 0, 0, 20, 28) for number in range(4))
    tags = np.tile((np.arange(3) < tagged).astype(np.uint8), (4, 1))
    table = TagTable(NAMES, tiles, tags, ("train",) * 4, np.ones(4, dtype=bool))
    for tile in tiles:
        save(tmp_path / f"{tile.name}.npy", MAPS + constant)
    UserCams(tmp_path, cast("SceneReader", None), table).check(tiles)
    printed = " ".join(capsys.readouterr().out.split())
    assert bool(said) == (f"in {said} of 4 tiles no map of a tagged class is above 0" in printed)
    assert bool(said) == bool(printed)


def placed(path: Path, maps: NDArray[Any], grid: Grid, nodata: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {"driver": "GTiff", "count": len(maps), "dtype": maps.dtype, "nodata": nodata}
    with rasterio.open(path, "w", **profile, **grid.profile) as raster:
        raster.write(maps)


UTM, AT = CRS.from_epsg(32633), (500000.0, 5800000.0)
IMAGE = Grid(40, 56, UTM, from_origin(*AT, 0.5, 0.5))
OTHER_WAY = {
    "east to west": Affine(-4, 0, AT[0] + 28, 0, -4, AT[1]),
    "south up": Affine(4, 0, AT[0], 0, 4, AT[1] - 20),
    "turned": Affine(0, -4, AT[0] + 28, -4, 0, AT[1]),
}


@pytest.mark.parametrize("way", OTHER_WAY)
def test_maps_stored_another_way_round_are_refused(tmp_path: Path, way: str) -> None:
    placed(tmp_path / "a.tif", MAPS, Grid(5, 7, UTM, OTHER_WAY[way]))
    with pytest.raises(UserError, match=r"is shifted by [0-9.]+ pixels against its image: warp it to the"):
        read_maps(tmp_path / "a.tif", NAMES, lambda: IMAGE)


@pytest.mark.parametrize(
    ("crs", "corner", "cell", "line"),
    [
        (32755, AT, 4, r"a.tif is in EPSG:32755, not in EPSG:32633 as its image"),
        (32633, (AT[0] + 28, AT[1]), 4, r"a.tif is shifted by 56.0 pixels against its image"),
        (32633, (AT[0], AT[1] + 4), 4, r"a.tif is shifted by 8.0 pixels against its image"),
        (32633, AT, 8, r"a.tif is shifted by 56.0 pixels against its image"),
        (32633, AT, 4, ""),
        (32633, (AT[0] - 1.75, AT[1] + 1.75), 4, ""),
        (None, AT, 4, ""),
    ],
)
def test_maps_lie_where_their_image_lies_to_a_cell(
    tmp_path: Path, crs: int | None, corner: tuple[float, float], cell: float, line: str
) -> None:
    system = None if crs is None else CRS.from_epsg(crs)
    placed(tmp_path / "a.tif", MAPS, Grid(5, 7, system, from_origin(*corner, cell, cell)))
    nowhere = Grid(40, 56, None, Affine.identity())
    assert np.array_equal(read_maps(tmp_path / "a.tif", NAMES, lambda: nowhere), MAPS)
    if not line:
        assert np.array_equal(read_maps(tmp_path / "a.tif", NAMES, lambda: IMAGE), MAPS)
        return
    with pytest.raises(UserError, match=line):
        read_maps(tmp_path / "a.tif", NAMES, lambda: IMAGE)


def test_the_maps_of_a_tile_lie_where_the_tile_lies(tmp_path: Path) -> None:
    class Reader:
        def grid(self, scene: str) -> Grid:
            assert scene == "a"
            return IMAGE

    tile = Tile("a", 8, 16, 20, 28)
    table = TagTable(NAMES, (tile,), np.ones((1, 3), np.uint8), ("train",), np.ones(1, dtype=bool))
    path = tmp_path / f"{tile.name}.tif"
    for corner, fits in (((AT[0] + 8, AT[1] - 4), True), (AT, False)):
        placed(path, MAPS, Grid(5, 7, UTM, from_origin(*corner, 2, 2)))
        cams = UserCams(tmp_path, cast("SceneReader", Reader()), table)
        if fits:
            cams.check((tile,))
            continue
        with pytest.raises(UserError, match=r"is shifted by 16\.0 pixels against its image"):
            cams.check((tile,))


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", 9999), ("float32", np.nan), ("uint8", 255)])
@pytest.mark.parametrize("count", [3, 4])
def test_nodata_is_no_activation(tmp_path: Path, dtype: str, nodata: float, count: int) -> None:
    maps = np.ones((count, 5, 7), dtype)
    maps[1, :2, :3] = nodata
    placed(tmp_path / "a.tif", maps, Grid(5, 7, UTM, from_origin(*AT, 4, 4)), nodata)
    maps[1, :2, :3] = 0
    assert np.array_equal(read_maps(tmp_path / "a.tif", (*NAMES, "water")[:count]), maps)


def test_masked_pixels_are_no_activation_but_a_fourth_class_is_no_mask(tmp_path: Path) -> None:
    maps = np.ones((4, 5, 7), np.uint8)
    maps[3, 0, 0] = 0
    place = Grid(5, 7, UTM, from_origin(*AT, 4, 4))
    placed(tmp_path / "a.tif", maps, place)
    assert np.array_equal(read_maps(tmp_path / "a.tif", (*NAMES, "water")), maps)
    placed(tmp_path / "b.tif", maps[:3], place)
    mask = np.ones((5, 7), dtype=bool)
    mask[:, 4] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "b.tif", "r+") as raster:
        raster.write_mask(mask)
    assert np.array_equal(read_maps(tmp_path / "b.tif", NAMES), maps[:3] * mask)
