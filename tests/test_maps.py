"""Maps of scenes of any kind: what is measured stays where it is, and viewers see classes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from ome.data.byte_image import open_scene
from ome.errors import UserError
from ome.files import read_csv
from ome.geo.image_source import ImageSource
from ome.geo.mosaic import Mosaic
from ome.geo.raster_folder import scenes_in
from ome.geo.sliding import PredictBatch, predict_windows
from ome.inference.card import SegmenterCard
from ome.inference.map_rows import MapOptions
from ome.inference.mapping import map_scene
from tests.test_areas import zone
from tests.trained_runs import CARD, CLASSES

UTM = from_origin(500000, 5800000, 0.5, 0.5)
TURNED = Affine(0.4, 0.3, 366676.4, 0.3, -0.4, 5807512.7)
DEGREES = from_origin(13.0, 52.5, 1e-5, 1e-5)


def brightest(images: np.ndarray) -> np.ndarray:
    """The class is the brightest of three bands, its probability that band's part of the sum."""
    values = np.moveaxis(images.astype(np.float32) + 1, -1, 1)
    return values / values.sum(axis=1, keepdims=True)


def random_scene(height: int, width: int, bands: int = 3, kind: str = "uint8") -> np.ndarray:
    """Patches of 3 pixels, nowhere 0."""
    top = 250 if kind == "uint8" else 9000
    patches = np.random.default_rng(0).integers(1, top, (bands, height // 3 + 1, width // 3 + 1))
    return patches.repeat(3, 1).repeat(3, 2)[:, :height, :width].astype(kind)


def write(
    path: Path,
    pixels: np.ndarray,
    crs: str | None = "EPSG:32633",
    transform: Affine = UTM,
    **more: Any,  # noqa: ANN401 - rasterio's
) -> Path:
    size = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **size, **more) as dataset:
        dataset.write(pixels)
    return path


def make_map(
    path: Path,
    folder: Path,
    card: SegmenterCard = CARD,
    predict: PredictBatch = brightest,
    **options: float,
) -> dict[str, Any]:
    with open_scene(path, card.channels, card.limits) as scene:
        return map_scene(scene, path.stem, card, predict, folder, MapOptions(**options))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    with rasterio.open(path) as dataset:
        yield dataset


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:32633", UTM), ("EPSG:25833", TURNED), ("EPSG:4326", DEGREES), (None, Affine.identity())],
)
def test_a_map_lies_where_its_scene_does(tmp_path: Path, crs: str | None, transform: Affine) -> None:
    pixels = random_scene(150, 131)
    scene = write(tmp_path / "city.tif", pixels, crs, transform)
    counts = make_map(scene, tmp_path / "map")
    expected = pixels.argmax(axis=0)
    with opened(tmp_path / "map/city.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), expected)
        assert dataset.crs == (CRS.from_string(crs) if crs else None)
        assert dataset.transform == transform
        assert dataset.nodata == 255
    assert counts["pixels"] == dict(zip(CLASSES, np.bincount(expected.ravel()).tolist(), strict=True))
    assert [row["class"] for row in read_csv(tmp_path / "map/city_areas.csv")] == list(CLASSES)
    if crs is None:
        assert "area_m2" not in counts
    else:
        by_hand = expected.size * abs(transform.a * transform.e - transform.b * transform.d)
        if crs == "EPSG:4326":
            by_hand = zone(52.5 - 150e-5, 52.5, 131e-5)
        # UTM shows areas up to a thousandth too large or too small.
        assert sum(counts["area_m2"].values()) == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:2263"])
def test_a_reference_system_without_a_place_gives_no_areas(tmp_path: Path, crs: str) -> None:
    scene = write(tmp_path / "city.tif", random_scene(70, 66), crs, Affine.identity())
    with opened(scene) as dataset:
        assert dataset.crs == CRS.from_string(crs)
    counts = make_map(scene, tmp_path / "map")
    assert "area_m2" not in counts
    with opened(tmp_path / "map/city.tif") as dataset:
        assert dataset.crs is None


def test_viewers_see_classes_and_open_it_at_once(tmp_path: Path) -> None:
    scene = write(tmp_path / "city.tif", random_scene(700, 1100))
    make_map(scene, tmp_path / "map", confidence=True, probabilities=True, stride=1.0, batch=32)
    for name, blocks in (("city", 1), ("city_confidence", 1), ("city_probabilities", 3)):
        with opened(tmp_path / f"map/{name}.tif") as dataset:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert dataset.block_shapes == [(512, 512)] * blocks
            assert dataset.overviews(1) == [2, 4]
            assert dataset.nodatavals == (255,) * blocks
    with opened(tmp_path / "map/city.tif") as dataset:
        assert dataset.colorinterp[0].name == "palette"
        assert [dataset.colormap(1)[index][:3] for index in range(3)] == list(CLASSES.values())
        assert [dataset.tags(1)[f"CLASS_{index}"] for index in range(3)] == list(CLASSES)
        assert set(np.unique(dataset.read(1, out_shape=(175, 275)))) <= {0, 1, 2}, "overviews mix no classes"
    # GDAL's own reading of the category names, where QGIS takes its legend from.
    rasterio.shutil.copy(tmp_path / "map/city.tif", tmp_path / "read.vrt", driver="VRT")
    for name in CLASSES:
        assert f"<Category>{name}</Category>" in (tmp_path / "read.vrt").read_text()
    legend = ET.parse(tmp_path / "map/city.qml").getroot()  # noqa: S314 - written here
    assert legend.tag == "qgis"
    assert legend.find("pipe/rasterrenderer").attrib.items() >= {"type": "paletted", "band": "1"}.items()
    entries = [entry.attrib for entry in legend.iter("paletteEntry")]
    assert [(entry["value"], entry["label"]) for entry in entries] == [
        ("0", "road"),
        ("1", "tree"),
        ("2", "water"),
    ]
    assert [tuple(bytes.fromhex(entry["color"][1:])) for entry in entries] == list(CLASSES.values())
    left = {"city.tif", "city.tif.aux.xml", "city.qml", "city_areas.csv"}
    left |= {"city_confidence.tif", "city_probabilities.tif"}
    assert {path.name for path in (tmp_path / "map").iterdir()} == left


def test_probabilities_are_bytes_with_a_scale(tmp_path: Path) -> None:
    pixels = random_scene(90, 80)
    make_map(write(tmp_path / "city.tif", pixels), tmp_path / "map", confidence=True, probabilities=True)
    exact = (pixels + 1.0) / (pixels + 1.0).sum(axis=0)
    with opened(tmp_path / "map/city_probabilities.tif") as dataset:
        assert dataset.descriptions == tuple(CLASSES)
        shares = dataset.read() * np.array(dataset.scales)[:, None, None]
    np.testing.assert_allclose(shares, exact, atol=0.5 / 254 + 1e-6)
    with opened(tmp_path / "map/city_confidence.tif") as dataset:
        np.testing.assert_allclose(
            dataset.read(1) * dataset.scales[0], exact.max(axis=0), atol=0.5 / 254 + 1e-6
        )


@pytest.mark.parametrize("how", ["nodata", "opacity", "mask"])
def test_what_was_not_measured_has_no_class(tmp_path: Path, how: str) -> None:
    pixels, empty = random_scene(160, 150), np.zeros((160, 150), bool)
    empty[:90, :100] = True  # whole windows, and parts of others
    empty[120:123, 7] = True
    pixels[0, 130, 140] = 0  # nodata in one band of three is a measurement
    path = tmp_path / "city.tif"
    if how == "nodata":
        write(path, np.where(empty, 0, pixels), nodata=0)
    elif how == "opacity":
        opacity = np.where(empty, 0, 255).astype(np.uint8)[None]
        write(path, np.concatenate([pixels, opacity]), photometric="RGB", alpha="YES")
    else:
        write(path, pixels)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(~empty)
    counts = make_map(path, tmp_path / "map", confidence=True)
    for name, values in (("city", pixels.argmax(axis=0)), ("city_confidence", None)):
        with opened(tmp_path / f"map/{name}.tif") as dataset:
            written = dataset.read(1)
        np.testing.assert_array_equal(written == 255, empty)
        if values is not None:
            np.testing.assert_array_equal(written[~empty], values[~empty])
    assert counts["empty_pixels"] == empty.sum()


def test_bands_come_in_the_order_of_the_network(tmp_path: Path) -> None:
    pixels = random_scene(70, 66, bands=5)
    card = SegmenterCard(**CARD.__dict__ | {"channels": (4, 1, 3)})
    make_map(write(tmp_path / "city.tif", pixels, photometric="MINISBLACK"), tmp_path / "map", card)
    with opened(tmp_path / "map/city.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), pixels[[3, 0, 2]].argmax(axis=0))
    few = write(tmp_path / "few.tif", pixels[:2])
    message = r"few\.tif has 2 bands, and the network expects the bands \[4, 1, 3\]: .*channels=\[1,2,2\]'"
    with pytest.raises(UserError, match=message):
        make_map(few, tmp_path / "none", card)
    with pytest.raises(UserError, match=r"deep\.tif holds float32 values, only uint8 and uint16"):
        make_map(write(tmp_path / "deep.tif", pixels.astype("f4")), tmp_path / "none", card)


def test_16_bits_are_scaled_as_prepared_scenes_are(tmp_path: Path) -> None:
    pixels = random_scene(100, 90, kind="uint16") * np.array([1, 3, 6], "u2")[:, None, None]
    pixels[:, :20] = 0
    path = write(tmp_path / "city.tif", pixels, nodata=0)
    scaled = []
    for band in pixels.astype(float):
        ordered = np.sort(band[band > 0])
        low, high = (ordered[int(np.ceil(fraction * ordered.size)) - 1] for fraction in (0.02, 0.98))
        scaled.append(np.where(band > 0, np.rint(np.clip((band - low) / (high - low), 0, 1) * 255), 0))
    with open_scene(path, (1, 2, 3), None) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 100, 90), np.stack(scaled, -1))
    with open_scene(path, (3, 1), (1000, 5000)) as scene:
        expected = np.rint(np.clip((pixels[[2, 0]] - 1000.0) / 4000, 0, 1) * 255)
        np.testing.assert_array_equal(scene.read(5, 7, 60, 50), np.moveaxis(expected, 0, -1)[5:65, 7:57])


def test_a_colour_table_is_looked_up(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 3, (1, 70, 80)).astype(np.uint8)
    colours = np.array([[9, 8, 7], [1, 2, 3], [200, 90, 255]], np.uint8)
    with rasterio.open(
        tmp_path / "old.tif", "w", driver="GTiff", count=1, height=70, width=80, dtype="uint8", transform=UTM
    ) as dataset:
        dataset.write(indices)
        dataset.write_colormap(1, {index: (*map(int, colour), 255) for index, colour in enumerate(colours)})
    with open_scene(tmp_path / "old.tif", (3, 2, 1), None) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 70, 80), colours[indices[0]][..., ::-1])


@pytest.mark.parametrize("how", ["GeoTIFF", "GeoTIFF without system", "world files"])
def test_tiles_in_a_folder_are_one_scene_with_gaps(tmp_path: Path, how: str) -> None:
    whole = random_scene(120, 200)
    places = {"a": (0, 0), "b": (0, 70), "c": (50, 130)}
    crs = "EPSG:32633" if how == "GeoTIFF" else None
    for name, (row, column) in places.items():
        tile, place = whole[:, row : row + 70, column : column + 70], UTM * Affine.translation(column, row)
        if how == "world files":
            Image.fromarray(tile.transpose(1, 2, 0)).save(tmp_path / f"{name}.png")
            x, y = place * (0.5, 0.5)
            (tmp_path / f"{name}.pgw").write_text(f"{place.a}\n0\n0\n{place.e}\n{x}\n{y}\n")
        else:
            write(tmp_path / f"{name}.tif", tile, crs, transform=place, nodata=0)
    assert scenes_in(tmp_path) == [tmp_path]
    counts = make_map(tmp_path, tmp_path / "map", polygons=True)
    covered = np.zeros((120, 200), bool)
    for row, column in places.values():
        covered[row : row + 70, column : column + 70] = True
    with opened(tmp_path / f"map/{tmp_path.name}.tif") as dataset:
        written = dataset.read(1)
        assert dataset.transform == UTM
        assert dataset.crs == (CRS.from_epsg(32633) if crs else None)
    np.testing.assert_array_equal(written, np.where(covered, whole.argmax(axis=0), 255))
    assert ("area_m2" in counts) == (crs is not None)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"crs": "EPSG:32632"}, "coordinate reference system"),
        ({"crs": None}, "coordinate reference system"),
        ({"transform": from_origin(500035, 5800000, 0.6, 0.6)}, "pixel size"),
        ({"transform": from_origin(500035.2, 5800000, 0.5, 0.5)}, "grid"),
        ({"pixels": random_scene(70, 70, 4)}, "number of bands"),
        ({"pixels": random_scene(70, 70, kind="uint16")}, "data type"),
        ({"names": ("blue", "green", "red")}, r"order of bands \(red, green, blue and blue, green, red\)"),
    ],
)
def test_tiles_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Any], difference: str) -> None:
    pixels = random_scene(70, 70)
    write(tmp_path / "a.tif", pixels, photometric="RGB")
    names = change.pop("names", ())
    written = write(
        tmp_path / "b.tif", **{"pixels": pixels, "transform": from_origin(500035, 5800000, 0.5, 0.5)} | change
    )
    with rasterio.open(written, "r+") as raster:
        for band, name in enumerate(names, 1):
            raster.set_band_description(band, name)
    with pytest.raises(UserError, match=rf"b\.tif and .*a\.tif differ in {difference}"):
        Mosaic([tmp_path / "a.tif", tmp_path / "b.tif"], "city")


@pytest.mark.parametrize("negative", [0, 1])
def test_every_tile_is_an_image(tmp_path: Path, negative: int) -> None:
    paths = [tmp_path / f"{number}.tif" for number in range(2)]
    for number, path in enumerate(paths):
        more = {"photometric": "MINISWHITE"} if number == negative else {}
        write(
            path,
            random_scene(70, 70, 1),
            transform=from_origin(500_000 + 35 * number, 5_800_000, 0.5, 0.5),
            **more,
        )
    with pytest.raises(UserError, match=rf"{negative}\.tif holds a negative"):
        Mosaic(paths, "city")


@pytest.mark.parametrize(("metres", "refused"), [(100, False), (10_000, False), (100_000, True)])
def test_tiles_far_apart_are_no_scene(tmp_path: Path, metres: int, refused: bool) -> None:
    """As patches over a country, or one tile in the wrong place: the map would fill the disk."""
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for number, path in enumerate(paths):
        place = from_origin(500_000 + number * metres, 5_800_000 - number * metres, 0.5, 0.5)
        write(path, random_scene(70, 70), transform=place)
    if not refused:
        with Mosaic(paths, "city") as mosaic:
            assert mosaic.grid.width == metres * 2 + 70
        return
    with pytest.raises(UserError, match=r"^city: its 2 rasters lie far apart, on a grid of 200070 x 200070"):
        Mosaic(paths, "city")


def test_a_killed_map_goes_on_and_comes_out_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "city.tif", random_scene(400, 150), nodata=7)
    options = {"confidence": True, "probabilities": True, "batch": 2}

    def predict(images: np.ndarray) -> np.ndarray:
        """Also depends on the place in the window, so that a window left out would show."""
        values = brightest(images) + np.linspace(0, 1, 64, dtype=np.float32)[:, None]
        return values / values.sum(axis=1, keepdims=True)

    make_map(path, tmp_path / "whole", predict=predict, **options)
    child = os.fork()
    if child == 0:  # the process that is killed
        torch.set_num_threads(1)
        calls = iter(range(100))

        def killed(images: np.ndarray) -> np.ndarray:
            if next(calls) == 11:
                os.kill(os.getpid(), signal.SIGKILL)
            return predict(images)

        make_map(path, tmp_path / "map", predict=killed, **options)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "map/city.tif").exists()
    (tmp_path / "map/rows/.rows.4711.json").write_text("")  # what a kill within a write leaves
    calls: list[int] = []

    def counted(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return predict(images)

    make_map(path, tmp_path / "map", predict=counted, **options)
    assert 0 < sum(calls) < 12 * 4 - 11, "rows that were finished are not predicted again"
    for name in ("city.tif", "city_confidence.tif", "city_probabilities.tif", "city_areas.csv"):
        assert (tmp_path / "map" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_blending_hides_the_seams_of_windows() -> None:
    """Against the network on the whole scene at once, whose zero padding is felt at the edges of windows."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3 if n == 0 else 8, 8, 5, padding=2) for n in range(3)]
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 3, 1)).requires_grad_(False)
    scene = np.random.default_rng(0).integers(0, 256, (160, 192, 3)).astype(np.uint8)

    def predict(images: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(images).movedim(-1, 1) / 64).softmax(dim=1).numpy()

    whole = predict(scene[None])[0]
    errors = {}
    for stride in (64, 32):
        blocks = predict_windows(
            lambda row, column, height, width: scene[row : row + height, column : column + width],
            *(160, 192),
            predict,
            3,
            size=64,
            stride=stride,
            batch=4,
        )
        blended = np.concatenate([block.probabilities for block in blocks], axis=1)
        inside = np.abs(blended - whole).max(axis=0)[8:-8, 8:-8]
        errors[stride] = float(inside.max())
    assert errors[64] > 0.05, "tiles side by side have seams"
    assert errors[32] < errors[64] / 10


def test_another_pixel_size_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = random_scene(70, 70)
    make_map(write(tmp_path / "near.tif", pixels), tmp_path / "near")
    assert "pixel of" not in capsys.readouterr().out
    coarse = write(tmp_path / "far.tif", pixels, transform=from_origin(500000, 5800000, 2, 2))
    make_map(coarse, tmp_path / "far")
    assert "prediction.scales=[4.0] predicts at their size" in capsys.readouterr().out


COLOURS = ("red", "green", "blue")


@pytest.mark.parametrize(
    ("bands", "kind", "labels", "channels", "message"),
    [
        (3, "uint8", COLOURS, (1, 2, 3), ""),
        (3, "uint8", COLOURS[::-1], (3, 2, 1), ""),
        (3, "uint8", (), (1, 2, 3), ""),
        (3, "uint8", COLOURS[::-1], (1, 2, 3), "labels the bands [1, 2, 3] blue, green, red, the training"),
        (4, "uint8", (*COLOURS[::-1], "nir"), (3, 2, 1), ""),
        (
            4,
            "uint8",
            ("nir", *COLOURS),
            (1, 2, 3),
            "labels the bands [1, 2, 3] nir, red, green, the training",
        ),
        (
            4,
            "uint8",
            (),
            (1, 2, 3),
            "has 4 bands, the training images 3: the network takes the bands [1, 2, 3]",
        ),
        (12, "uint8", (), (4, 3, 2), ""),
        (3, "uint16", COLOURS, (1, 2, 3), "has uint16 values, the training images uint8: uint16 is scaled"),
    ],
)
def test_bands_and_depths_unlike_those_of_the_training_images_are_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    bands: int,
    kind: str,
    labels: tuple[str, ...],
    channels: tuple[int, ...],
    message: str,
) -> None:
    path = write(tmp_path / "city.tif", random_scene(70, 66, bands, kind), photometric="MINISBLACK")
    if labels:
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = tuple(label.upper() for label in labels)
    card = replace(CARD, source=ImageSource("uint8", 3, COLOURS))
    with open_scene(path, channels) as scene:
        map_scene(scene, "city", card, brightest, tmp_path / "map", MapOptions())
    output = " ".join(capsys.readouterr().out.split())
    assert message in output
    assert ("the training images" in output) == bool(message)


def test_a_scene_that_lies_nowhere_on_earth_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "city.tif", random_scene(70, 70), crs="EPSG:4326")
    with pytest.raises(UserError, match=r"city\.tif has degrees as coordinates \(EPSG:4326\), .* gdal_edit"):
        make_map(path, tmp_path / "map")
    assert not (tmp_path / "map/rows").exists()


def test_a_damaged_scene_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "city.tif", random_scene(400, 300))
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(UserError, match=r"city\.tif is damaged at rows"):
        make_map(path, tmp_path / "map")
    with pytest.raises(UserError, match=r"nowhere\.tif does not exist"):
        make_map(tmp_path / "nowhere.tif", tmp_path / "map")


def test_infrared_is_no_opacity(tmp_path: Path) -> None:
    """GDAL writes the fourth band of four as opacity, and infrared is 0 over water."""
    pixels = random_scene(70, 140, bands=4)
    pixels[3, 20:60, 10:130] = 0
    card = SegmenterCard(**CARD.__dict__ | {"channels": (4, 1, 2)})
    whole = write(tmp_path / "city.tif", pixels)
    for number, column in enumerate((0, 70)):
        shifted = UTM * Affine.translation(column, 0)
        tile = tmp_path / f"tiles/{number}.tif"
        tile.parent.mkdir(exist_ok=True)
        write(tile, pixels[:, :, column : column + 70], transform=shifted)
    for path in (whole, tmp_path / "tiles"):
        make_map(path, tmp_path / "maps", card)
        with opened(tmp_path / "maps" / f"{path.stem}.tif") as dataset:
            np.testing.assert_array_equal(dataset.read(1), pixels[[3, 0, 1]].argmax(axis=0))
