"""`stage=predict`, the same from Python, and the exported network: all say what the network says."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rasterio
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rasterio.transform import from_origin
from torch.nn import functional as F

import ome
from ome.cli.plan import plan_of
from ome.data.transforms import to_tensor
from ome.errors import UserError
from ome.geo.image_source import ImageSource
from ome.inference.array_scene import _has_bands_first
from ome.inference.card import SegmenterCard
from ome.inference.segmenter_folders import (
    SEGMENTER_STAGES,
    network_folder,
    segmenter_stages,
    stage_of_network,
)
from ome.networks.exchange import largest_difference, load_onnx, load_program, save_program, trace
from ome.networks.segmenters import Segmenter
from ome.pipeline.artifacts import note_inherited
from ome.pipeline.manifest import Manifest
from ome.pipeline.registry import STAGES
from ome.stages.predict import STAGE
from tests.conftest import compose_config
from tests.test_maps import random_scene, write
from tests.trained_runs import CARD as TRAINED
from tests.trained_runs import make_run

Run = Callable[..., DictConfig]
FP32 = "32-true"
BASE = (
    "stage=predict",
    "dataset=synthetic",
    "trainer=cpu",
    f"trainer.precision={FP32}",
    "run_dir=run",
    "prediction.flip=false",
)


def classes_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        classes: np.ndarray = dataset.read(1)
    return classes


def one_window(run: Path, pixels: np.ndarray) -> np.ndarray:
    """What the network says of a scene of one window."""
    network = TRAINED.load(run / "seg/weak").eval()
    with torch.no_grad():
        return network(to_tensor(pixels.transpose(1, 2, 0))[None])[0].argmax(dim=0).numpy()


@pytest.mark.parametrize("from_python", [False, True])
def test_a_scene_of_smaller_pixels_is_seen_as_in_training(
    from_python: bool, run_here: Run, tmp_path: Path
) -> None:
    """Half as large: a window of twice as many pixels to a side is the size of a tile after it is shrunk."""
    pixels = random_scene(64, 64).repeat(2, axis=1).repeat(2, axis=2)
    run = make_run(tmp_path / "run")
    scene = write(tmp_path / "city.tif", pixels)
    if from_python:
        classes = ome.predict(scene, run, scales=[0.5], flip=False, device="cpu", precision=FP32).classes
    else:
        run_here(*BASE, "stage.predict.scene=city.tif", "prediction.scales=[0.5]")
        classes = classes_of(run / "predict/city/city.tif")
    network = TRAINED.load(run / "seg/weak").eval()
    with torch.no_grad():
        logits = network(to_tensor(pixels[:, ::2, ::2].transpose(1, 2, 0))[None])
    expected = F.interpolate(logits, (128, 128), mode="bilinear")[0].argmax(dim=0).numpy()
    np.testing.assert_array_equal(classes, expected)


@pytest.mark.parametrize(
    ("scales", "tile"), [([1.0], 64), ([0.5], 128), ([0.4], 160), ([0.1], 256), ([2.0], 64), ([0.5, 1.0], 64)]
)
def test_windows_grow_where_all_scales_shrink_them(scales: list[float], tile: int) -> None:
    assert replace(TRAINED, tile=64).for_views(scales, flip=False, tta=None).tile == tile


def test_a_map_is_what_the_network_says(run_here: Run, tmp_path: Path) -> None:
    pixels = random_scene(64, 64)
    run = make_run(tmp_path / "run")
    scene = write(tmp_path / "city.tif", pixels)
    run_here(*BASE, "stage.predict.scene=city.tif", "stage.predict.polygons=true")
    np.testing.assert_array_equal(classes_of(run / "predict/city/city.tif"), one_window(run, pixels))
    manifest = Manifest.read(run / "predict/city")
    assert manifest is not None
    assert manifest.inputs == {"seg": "seg0"}
    assert manifest.counts["network"] == "seg/weak"
    files = {path.name for path in (run / "predict/city").iterdir()}
    assert files == {
        "city.tif",
        "city.tif.aux.xml",
        "city.qml",
        "city.gpkg",
        "city_areas.csv",
        "files.csv",
        "manifest.json",
    }
    for image in (scene, pixels.transpose(1, 2, 0)):
        prediction = ome.predict(image, run, flip=False, device="cpu", precision=FP32)
        np.testing.assert_array_equal(prediction.classes, one_window(run, pixels))
        assert prediction.names == tuple(TRAINED.classes)
        assert prediction.confidence.min() > 1 / 3 - 0.01
    counts = ome.map_scene(scene, run, tmp_path / "here", flip=False, device="cpu", precision=FP32)
    assert counts["pixels"] == manifest.counts["pixels"]
    assert (tmp_path / "here/city.tif").read_bytes() == (run / "predict/city/city.tif").read_bytes()


def test_arrays_as_people_have_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pixels = random_scene(64, 64).transpose(1, 2, 0)
    options = {"flip": False, "device": "cpu", "precision": FP32}
    expected = ome.predict(pixels, run, **options).classes
    with_infrared = np.concatenate([pixels, pixels[..., :1]], axis=2)
    for same in (torch.from_numpy(pixels.copy()), with_infrared):
        np.testing.assert_array_equal(ome.predict(same, run, **options).classes, expected)
    numbers = {"batch": np.int64(2), "stride": np.float32(0.5), "scales": (np.float32(1),)}
    np.testing.assert_array_equal(ome.predict(pixels, run, **options, **numbers).classes, expected)
    for wrong, message in (
        (pixels.transpose(2, 0, 1), r"shape \(3, 64, 64\), but bands must be last: give array.transpose"),
        (torch.zeros(3, 40, 48, dtype=torch.uint8), r"bands must be last: give tensor.permute\(1, 2, 0\)"),
        (np.zeros((224, 512, 512), np.uint8), "bands must be last"),
        (pixels / 255, r"float64 values: give uint8 or uint16, e\.g\. \(np.asarray\(array\) \* 255\).astype"),
        (pixels / 1.0, r"has float64 values: .* np.asarray\(array\).round\(\).astype\('uint8'\)$"),
        (pixels * 99.0, r"has float64 values: .* np.asarray\(array\).round\(\).astype\('uint16'\)$"),
        (torch.from_numpy(pixels * 1.0), r"float64 values: .*, e\.g\. tensor.round\(\).to\(torch.uint8\)$"),
        (torch.from_numpy(pixels / 255), r"has float64 values: .*, e\.g\. \(tensor \* 255\).byte\(\)"),
        (torch.ones(9, 9, 3) * torch.nan, r"has float32 values: .*, e\.g\. \(tensor \* 255\).byte\(\)"),
        (pixels > 9, r"has bool values: .*, e\.g\. np.asarray\(array\).astype\('uint8'\)$"),
        (torch.from_numpy(pixels > 9), r"has bool values: .*, e\.g\. tensor.to\(torch.uint8\)$"),
        (pixels.astype(object), r"has object values: give uint8 or uint16$"),
        (pixels.astype("int16") - 200, r"has int16 values: give uint8 or uint16$"),
        (np.array([[["a"]]]), r"has str32 values: give uint8 or uint16$"),
        (np.ma.masked_equal(pixels.astype(int), 9), r"np.ma.masked_invalid\(array\).astype\('uint8'\)$"),
        (pixels.tolist(), r"has int64 values: .*, e\.g\. np.asarray\(array\).astype\('uint8'\)$"),
        (
            pixels.astype(np.int16) * 9,
            r"has int16 values: .* np.asarray\(array\).astype\('uint16'\)$",
        ),
        (torch.ones(9, 9, 3, dtype=torch.int32), r"has int32 values: .*, e\.g\. tensor.to\(torch.uint8\)$"),
        (np.full((9, 9, 3), np.nan), r"e\.g\. \(np.ma.masked_invalid\(array\) \* 255\).astype"),
        (pixels[None], r"shape \(1, 64, 64, 3\): give \(height, width, bands\)"),
        (pixels[..., 0], "has 1 bands, and the network expects the bands"),
        (torch.zeros(64, 64, 3, requires_grad=True), r"has float32 values: .* \(tensor \* 255\).byte\(\)"),
        (torch.zeros(64, 64, 3).bfloat16(), r"has bfloat16 values: .* \(tensor \* 255\).byte\(\)"),
        (pixels[:0], r"no pixels, its shape is \(0, 64, 3\)"),
        (torch.zeros(9, 9, 3, device="meta"), r"the array has float32 values"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8, device="meta"), r"the scene is not an array \(.*\): give"),
        (torch.ones(9, 9, 3).to_sparse(), r"the scene is not an array \(.*\): give"),
        (torch.ones(9, 9, 3, dtype=torch.uint8).to_sparse(), r"the scene is not an array \(.*\): give"),
        (np.broadcast_to(np.uint8(1), (1 << 20, 1 << 20, 3)), r"the array of shape \(.*\) needs more memory"),
        ([[1, 2], [3]], r"the scene is not an array \(.*\): give \(height, width, bands\) uint8"),
    ):
        with pytest.raises(UserError, match=message):
            ome.predict(wrong, run, **options)


@pytest.mark.parametrize(
    ("shape", "needed", "first"),
    [
        ((3, 40, 48), 3, True),
        ((3, 40, 48), 4, True),  # of a network of four bands
        ((1, 40, 48), 3, True),
        ((13, 40, 48), 4, True),
        ((224, 512, 512), 3, True),
        ((40, 48, 3), 3, False),
        ((40, 48, 224), 3, False),
        ((3, 500, 4), 4, False),  # three rows
        ((100, 128, 224), 3, False),
        ((1, 1, 3), 3, False),
    ],
)
def test_bands_that_come_first_are_told_from_small_images(
    shape: tuple[int, ...], needed: int, first: bool
) -> None:
    assert _has_bands_first(shape, needed) == first


def test_the_settings_of_a_run_are_those_of_its_maps_from_python(tmp_path: Path) -> None:
    run, here = make_run(tmp_path / "run"), {"device": "cpu", "precision": FP32}
    pixels = random_scene(100, 90).transpose(1, 2, 0)
    recorded = {"stride": 0.5, "scales": [1.0, 0.5], "flip": False, "tta": None, "batch": 2}
    typed: dict[str, Any] = {"stride": 0.5, "scales": (1.0, 0.5), "flip": False}
    expected = ome.predict(pixels, run, **typed, **here).confidence
    flipped = ome.predict(pixels, run, **typed | {"flip": True}, **here).confidence
    assert not np.array_equal(expected, flipped)
    Manifest("seg", "seg0", {"prediction": recorded}, {}).write(run / "seg")
    np.testing.assert_array_equal(ome.predict(pixels, run, **here).confidence, expected)
    np.testing.assert_array_equal(ome.predict(pixels, run, flip=True, **here).confidence, flipped)


@pytest.mark.parametrize("flip", [False, True])
def test_a_segmenter_is_inherited_if_its_settings_are_the_same(
    run_here: Run, tmp_path: Path, *, flip: bool
) -> None:
    """`prediction.tta` came later, and is recorded only where it is on."""
    recorded = {"stride": 0.625, "scales": [1.0], "flip": flip, "batch": None}
    Manifest("seg", "seg0", {"prediction": recorded}, {}).write(make_run(tmp_path / "other") / "seg")
    write(tmp_path / "city.tif", random_scene(64, 64))
    refused = pytest.raises(UserError, match=r"prediction\.flip=True, not False") if flip else nullcontext()
    with refused:
        run_here(*BASE, "inherit=other", "stage.predict.scene=city.tif")
    assert (tmp_path / "run/predict/city/city.tif").exists() != flip


def test_a_segmenter_that_was_inherited_once_is_that_of_the_run(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For commands without `inherit`, for Python from any working folder, and in a mean."""
    make_run(tmp_path / "other", network="weak")
    make_run(tmp_path / "third", seed=1)
    write(tmp_path / "city.tif", random_scene(64, 64))
    run_here(*BASE, "inherit=other", "stage.predict.scene=city.tif")
    assert not (tmp_path / "run/seg").exists()
    again = [*BASE, "stage.predict.scene=city.tif", "stage.predict.map_name=again"]
    run_here(*again)
    export = [word for word in BASE if word != "stage=predict"]
    plan_of(compose_config(["stage=export", *export]), ["export"])
    run_here(*again, "run_dir=third", "stage.predict.others=[run]")
    monkeypatch.chdir(tmp_path / "run")
    pixels, here = random_scene(64, 64).transpose(1, 2, 0), {"device": "cpu", "precision": FP32}
    expected, found = (ome.predict(pixels, f"../{run}", **here).confidence for run in ("other", "run"))
    np.testing.assert_array_equal(found, expected)
    monkeypatch.chdir(tmp_path)
    Manifest("seg", "another", {}, {}).write(tmp_path / "other/seg")
    with pytest.raises(UserError, match="needs the result of stage=seg"):
        run_here(*again, "force=true")
    with pytest.raises(UserError, match="run is not the folder of a run with a segmenter"):
        ome.predict(pixels, "run", **here)


def test_masked_pixels_are_not_measured(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pixels = random_scene(64, 64).transpose(1, 2, 0)
    mask = np.zeros(pixels.shape, dtype=bool)
    mask[:32] = True
    mask[40, :, 0] = True  # one band is zero, as dark pixels are where nodata=0
    options = {"flip": False, "device": "cpu", "precision": FP32}
    plain = ome.predict(np.ma.masked_array(pixels), run, **options)
    assert (plain.classes != 255).all()
    prediction = ome.predict(np.ma.masked_array(pixels, mask), run, **options)
    np.testing.assert_array_equal(prediction.classes == 255, mask.all(axis=2))
    np.testing.assert_array_equal(np.isnan(prediction.confidence), mask.all(axis=2))


@pytest.mark.parametrize("how", ["array", "file", "map", "stage"])
def test_the_nodata_value_of_the_run_is_that_of_its_scenes(run_here: Run, tmp_path: Path, how: str) -> None:
    """A PNG cannot declare the value of its borders: what `dataset.nodata` said in training counts."""
    run = make_run(tmp_path / "run")
    replace(TRAINED, nodata=0).write(run / "seg/weak")
    pixels = random_scene(64, 64).transpose(1, 2, 0)
    pixels[:20] = 0
    pixels[40, :, 0] = 0  # one band is zero
    expected = np.repeat(np.arange(64)[:, None] < 20, 64, axis=1)
    Image.fromarray(pixels).save(tmp_path / "city.png")
    options = {"flip": False, "device": "cpu", "precision": FP32}
    if how == "map":
        ome.map_scene(tmp_path / "city.png", run, tmp_path / "maps", **options)
        classes = classes_of(tmp_path / "maps/city.tif")
    elif how == "stage":
        run_here(*BASE, "stage.predict.scene=city.png")
        classes = classes_of(run / "predict/city/city.tif")
    else:
        classes = ome.predict(pixels if how == "array" else tmp_path / "city.png", run, **options).classes
    np.testing.assert_array_equal(classes == 255, expected)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("array", ""),
        ("depth", "the array has uint16 values, the training images uint8: uint16 is scaled and uint8 is"),
        ("depth of a file", "city.tif has uint16 values, the training images uint8"),
        ("order", "city.tif labels the bands [1, 2, 3] blue, green, red, the training images red, green,"),
        ("size", "a pixel of city.tif is 2 m wide, of the training scenes 0.5 m: prediction.scales=[4.0]"),
    ],
)
def test_what_a_scene_in_memory_has_unlike_the_training_images_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, message: str
) -> None:
    run = make_run(tmp_path / "run")
    card = replace(TRAINED, source=ImageSource("uint8", 3, ("red", "green", "blue")), pixel_size=0.5)
    card.write(run / "seg/weak")
    pixels = random_scene(64, 64, kind="uint16" if how.startswith("depth") else "uint8")
    scene: Any = pixels.transpose(1, 2, 0)
    if how not in {"array", "depth"}:
        side = 2 if how == "size" else 0.5
        scene = write(tmp_path / "city.tif", pixels, transform=from_origin(500_000, 5_800_000, side, side))
    if how == "order":
        with rasterio.open(scene, "r+") as dataset:
            dataset.descriptions = ("blue", "green", "red")
    ome.predict(scene, run, flip=False, device="cpu", precision=FP32)
    printed = " ".join(capsys.readouterr().out.split())
    assert message in printed
    assert ("training" in printed) == bool(message)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "CMYK", "HSV", "YCbCr", "LAB", "RGBX", "1"])
def test_the_values_of_a_pillow_image_are_the_colours_that_it_shows(tmp_path: Path, mode: str) -> None:
    """Arrays of an image show neither palette nor opacity, nor that its values are other colours than RGB."""
    run = make_run(tmp_path / "run")
    image = Image.fromarray(random_scene(64, 64).transpose(1, 2, 0))
    options = {"flip": False, "device": "cpu", "precision": FP32}
    expected = ome.predict(np.asarray(image), run, **options).classes
    np.testing.assert_array_equal(ome.predict(image, run, **options).classes, expected)
    other = Image.new(mode, (64, 64))
    with pytest.raises(UserError, match=rf"the image has the mode {mode}: give image.convert\('RGB'\)"):
        ome.predict(other, run, **options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch", 0, "batch=0: expected a whole number of at least 1"),
        ("stride", 0, "stride=0: expected a number above 0 and at most 1"),
        ("scales", (), r"scales=\[\]: expected a list of one or more numbers from 0.05 to 16"),
        ("scales", 1.0, "scales=1.0: expected a list of one or more numbers from 0.05 to 16"),
        ("scales", (0,), r"scales=\[0\]: expected a list of one or more numbers from 0.05 to 16"),
        ("flip", "yes", "flip=yes: expected true or false"),
        ("tta", "d5", "tta=d5: expected d4"),
        ("precision", "8-bit", "precision=8-bit: expected auto, 32-true"),
        ("device", "tpu", "device=tpu cannot be used .*: give cpu or cuda"),
        ("device", "meta", "device=meta cannot be used .*: give cpu or cuda"),
    ],
)
def test_arguments_have_the_limits_of_settings(
    name: str, value: object, message: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    scene = write(tmp_path / "city.tif", random_scene(20, 20))
    for call in (ome.predict, lambda *args, **options: ome.map_scene(*args, tmp_path / "out", **options)):
        with pytest.raises(UserError, match=message) as raised:
            call(scene, run, **{"device": "cpu", name: value})
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": 5}, r"run=5: expected a path"),
        ({"run": np.array("run")}, r"run=array\('run'.*: expected a path"),
        ({"run": torch.tensor(3)}, r"run=tensor\(3\): expected a path"),
        ({"run": b"run"}, r"run=b'run': expected a path"),
        ({"run": "a\0b"}, "expected a path"),
        ({"run": ""}, "run='': expected a path"),
        ({"run": ["run", "run/"]}, r"run/seg/weak is given twice: give each run once"),
        ({"run": "run/seg"}, "run/seg is not the folder of a run with a segmenter: give one such as"),
        ({"network": 5}, "network=5: expected weak, full, round_1"),
        ({"folder": None}, "folder=None: expected a path"),
        ({"folder": "a\0b"}, "expected a path"),
        (
            {"scene": np.zeros((20, 20, 3), np.uint8)},
            "the scene is of the type ndarray: give a file; predict takes",
        ),
        ({"scene": "a\0b"}, "scene=.*: expected a path"),
        ({"polygons": "no"}, "polygons='no': expected True or False"),
        ({"confidence": None}, "confidence=None: expected True or False"),
        ({"scales": (100.0,)}, "expected a list of one or more numbers from 0.05 to 16"),
    ],
)
def test_wrong_arguments_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    scene = write(tmp_path / "city.tif", random_scene(40, 40))
    calls: list[Callable[..., object]] = [ome.map_scene]
    if not {"folder", "polygons", "confidence"} & arguments.keys() and not isinstance(
        arguments.get("scene"), np.ndarray
    ):
        calls.append(ome.predict)
    for call in calls:
        further = {"folder": "maps"} if call is ome.map_scene else {}
        with pytest.raises(UserError, match=message):
            call(**{"scene": scene, "run": "run", **further} | arguments)
    assert not (tmp_path / "maps").exists()


def test_the_map_of_a_turned_scene_is_the_turned_map(run_here: Run, tmp_path: Path) -> None:
    """Which only the mean over all eight orientations makes sure; by the setting and by the argument."""
    run, pixels = make_run(tmp_path / "run"), random_scene(64, 64).transpose(1, 2, 0)

    def confidence(scene: np.ndarray, tta: Any) -> np.ndarray:  # noqa: ANN401
        copied = np.ascontiguousarray(scene)
        return ome.predict(copied, run, tta=tta, flip=False, device="cpu", precision=FP32).confidence

    def largest_difference_of(tta: Any) -> float:  # noqa: ANN401
        plain = confidence(pixels, tta)
        turned = (lambda scene: np.rot90(scene, 3), lambda scene: scene[::-1])
        return max(np.abs(confidence(turn(pixels), tta) - turn(plain)).max() for turn in turned)

    assert largest_difference_of("d4") < 1.5 / 254
    assert largest_difference_of(None) > 1.5 / 254

    write(tmp_path / "city.tif", pixels.transpose(2, 0, 1))
    run_here(*BASE, "stage.predict.scene=city.tif", "stage.predict.confidence=true", "prediction.tta=d4")
    written = classes_of(tmp_path / "run/predict/city/city_confidence.tif") / np.float32(254)
    np.testing.assert_allclose(written, confidence(pixels, "d4"), atol=1e-6)
    used = Manifest.read(tmp_path / "run/predict/city").config
    assert used["prediction"]["tta"] == "d4"
    assert not {"asset", "others"} & used["stage"].keys(), "what is not used leaves older results valid"


def test_the_mean_of_runs_is_mapped(run_here: Run, tmp_path: Path) -> None:
    """From Python, by the setting and by the command: all the mean of what each run says alone."""
    runs = [make_run(tmp_path / name, seed=seed) for name, seed in (("run", 0), ("b", 1), ("c", 2))]
    scene, networks = write(tmp_path / "city.tif", random_scene(64, 64)), []
    for run in runs:
        network = TRAINED.load(run / "seg/weak").eval()
        with torch.no_grad():
            image = to_tensor(random_scene(64, 64).transpose(1, 2, 0))[None]
            networks.append(network(image)[0].softmax(dim=0).numpy())
    options = {"flip": False, "device": "cpu", "precision": FP32}
    for count in (1, 2, 3):
        mean = np.mean(networks[:count], axis=0)
        prediction = ome.predict(scene, runs[:count], **options)
        np.testing.assert_allclose(prediction.confidence, mean.max(axis=0), atol=1 / 254)
        assert (prediction.classes == mean.argmax(axis=0)).mean() > 0.99  # others are ties

    run_here(*BASE, "stage.predict.scene=city.tif", "stage.predict.others=[b,c]")
    written = tmp_path / "run/predict/city/city.tif"
    np.testing.assert_array_equal(classes_of(written), prediction.classes)
    ome.map_scene(scene, runs, tmp_path / "maps", **options)
    np.testing.assert_array_equal(classes_of(tmp_path / "maps/city.tif"), prediction.classes)
    # A map is stale when a network of another run was trained again.
    make_run(runs[1], seed=3)
    run_here(*BASE, "stage.predict.scene=city.tif", "stage.predict.others=[b,c]")
    assert (classes_of(written) != prediction.classes).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": {"road": (1, 1, 1), "tree": (2, 2, 2)}},
            "differ in classes, road, tree, water and road, tree",
        ),
        ({"classes": dict(TRAINED.classes) | {"tree": (9, 9, 9)}}, r"differ in colours, \(200, 0, 0\)"),
        (
            {"classes": dict(reversed(TRAINED.classes.items()))},
            "differ in the order of classes, road, tree, water and water, tree, road: average",
        ),
        ({"channels": (3, 2, 1)}, "differ in the order of bands, 1, 2, 3 and 3, 2, 1: average runs"),
        ({"limits": (0, 3000)}, r"differ in scaling of 16 bits \(dataset.range\), percentiles and 0, 3000"),
    ],
)
def test_runs_that_cannot_be_averaged_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    runs = [make_run(tmp_path / name) for name in "ab"]
    replace(TRAINED, **change).write(runs[1] / "seg/weak")
    with pytest.raises(UserError, match=message):
        ome.predict(random_scene(20, 20).transpose(1, 2, 0), runs)


def test_scenes_have_their_own_maps_and_are_mapped_once(run_here: Run, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    for name in ("north", "south"):
        write(tmp_path / f"{name}.tif", random_scene(64, 64))
        run_here(*BASE, f"stage.predict.scene={name}.tif")
    (tmp_path / "other").mkdir()
    write(tmp_path / "other/north.tif", random_scene(30, 30))
    maps = [tmp_path / f"run/predict/{name}/{name}.tif" for name in ("north", "south")]
    times = [path.stat().st_mtime_ns for path in maps]
    run_here(*BASE, "stage.predict.scene=north.tif")
    for force in ("false", "true"):
        with pytest.raises(
            UserError, match=r"stage=predict of .*north\.tif, and that of stage=predict of .*other/north\.tif"
        ):
            run_here(*BASE, "stage.predict.scene=other/north.tif", f"force={force}")
    assert [path.stat().st_mtime_ns for path in maps] == times
    make_run(tmp_path / "run", seed=1)
    run_here(*BASE, "stage.predict.scene=north.tif")
    assert maps[0].stat().st_mtime_ns > times[0], "another network, another map"
    assert maps[1].stat().st_mtime_ns == times[1]


def test_rasters_of_other_formats_in_a_folder_are_pointed_out(
    run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their places would be holes of the map; a VRT of the others and the parts of a raster would not."""
    make_run(tmp_path / "run")
    (tmp_path / "tiles").mkdir()
    write(tmp_path / "tiles/a.tif", random_scene(64, 64))
    for name in ("all.vrt", "a.tif.aux.xml.bak", "a.tfw~"):
        (tmp_path / "tiles" / name).touch()
    run_here(*BASE, "stage.predict.scene=tiles")
    assert "left out" not in capsys.readouterr().out
    for name in ("c.JP2", "b.jp2", "d.img"):
        (tmp_path / "tiles" / name).touch()
    run_here(*BASE, "stage.predict.scene=tiles", "force=true")
    assert "3 rasters in tiles are left out, the first is b.jp2" in capsys.readouterr().out


def test_photographs_in_a_folder_are_mapped_each(run_here: Run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "photos").mkdir()
    pixels = {"a": random_scene(64, 64), "b": random_scene(64, 64)[:, ::-1].copy()}
    for name, values in pixels.items():
        Image.fromarray(values.transpose(1, 2, 0)).save(tmp_path / f"photos/{name}.png")
    run_here(*BASE, "stage.predict.scene=photos")
    for name, values in pixels.items():
        np.testing.assert_array_equal(classes_of(run / f"predict/photos/{name}.tif"), one_window(run, values))
    manifest = Manifest.read(run / "predict/photos")
    assert manifest is not None
    assert list(manifest.counts) == ["network", "maps"]


@pytest.mark.parametrize(
    ("names", "options", "file"),
    [
        (("a.jpg", "a.png"), (), "a.tif"),
        (("A.jpg", "a.png"), (), "a.tif"),
        (("x.png", "x_confidence.png"), ("confidence",), "x_confidence.tif"),
        (("x.png", "x_probabilities.png"), ("probabilities",), "x_probabilities.tif"),
        (("_a.partial_.png", "a.partial.png"), (), "_a.partial_.tif"),
    ],
)
def test_maps_that_would_overwrite_each_other_are_refused(
    run_here: Run, tmp_path: Path, names: tuple[str, str], options: tuple[str, ...], file: str
) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "photos").mkdir()
    for name in names:
        Image.fromarray(random_scene(64, 64).transpose(1, 2, 0)).save(tmp_path / "photos" / name)
    typed = [f"stage.predict.{option}=true" for option in options]
    with pytest.raises(UserError, match=rf"{names[0]} and \S*{names[1]} would both write {file}: rename one"):
        run_here(*BASE, "stage.predict.scene=photos", *typed)
    assert not list((tmp_path / "run").rglob("*.tif")), "refused before anything is mapped"
    if options:
        run_here(*BASE, "stage.predict.scene=photos")
        assert {path.name for path in (tmp_path / "run/predict/photos").glob("*.tif")} == {
            f"{Path(name).stem}.tif" for name in names
        }


STATISTICS = "<Metadata><MDI key='STATISTICS_MAXIMUM'>255</MDI></Metadata><Histograms/>"


def test_a_map_is_made_of_all_that_gdal_reads(tmp_path: Path) -> None:
    settings = {"scene": "", "asset": None, "allow_external": False, "others": None}
    config = OmegaConf.create({"stage": settings, "run_dir": "run"})

    def made_of(name: str) -> list[Any]:
        config.stage.scene = str(tmp_path / name)
        assert STAGE.external_files is not None
        return STAGE.external_files(config)

    write(tmp_path / "near.tif", random_scene(64, 64))
    source = '<SourceFilename relativeToVRT="1">near.tif</SourceFilename>'
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource></VRTRasterBand>'
    (tmp_path / "v.vrt").write_text(f'<VRTDataset rasterXSize="64" rasterYSize="64">{band}</VRTDataset>')
    (tmp_path / "photos").mkdir()
    for suffix in ("png", "jpeg", "JPG"):
        Image.fromarray(random_scene(64, 64).transpose(1, 2, 0)).save(tmp_path / f"photos/{suffix}.{suffix}")
    for scene, file in (
        *(("v.vrt", "near.tif"), ("v.vrt", "near.tfw"), ("v.vrt", "v.vrt.msk")),
        *(("near.tif", "near.tif.msk"), ("near.tif", "near.TAB"), ("near.tif", "near.tifw")),
        *(("photos/png.png", "photos/png.pgw"), ("photos", "photos/png.wld"), ("photos", "photos/jpeg.jgw")),
        *(("photos/JPG.JPG", "photos/JPG.JGW"), ("photos/png.png", "photos/png.png.aux.xml")),
    ):
        before = made_of(scene)
        (tmp_path / file).write_bytes(b"another")
        assert made_of(scene) != before, file
    for scene, file in (
        *(("near.tif", "near.tif.ovr"), ("near.tif", "near.txt"), ("near.tif", "near.pgw")),
        ("near.tif", "near.tif.aux.xml"),
    ):
        before = made_of(scene)
        (tmp_path / file).write_text(f"<PAMDataset><PAMRasterBand>{STATISTICS}</PAMRasterBand></PAMDataset>")
        assert made_of(scene) == before, file


def test_a_map_follows_the_world_file_of_its_scene(run_here: Run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    Image.fromarray(random_scene(64, 64).transpose(1, 2, 0)).save(tmp_path / "w.png")
    for east in (500000, 700000):
        (tmp_path / "w.pgw").write_text(f"10\n0\n0\n-10\n{east + 5}\n5799995\n")
        run_here(*BASE, "stage.predict.scene=w.png")
        ome.map_scene("w.png", run, "here", flip=False, device="cpu", precision=FP32)
        for path in (run / "predict/w/w.tif", tmp_path / "here/w.tif"):
            with rasterio.open(path) as dataset:
                assert dataset.transform.c == east


@pytest.mark.parametrize("backend", ["lattice", "torch"])
def test_the_crf_moves_borders_only(backend: str, run_here: Run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write(tmp_path / "city.tif", random_scene(80, 80))
    plain = ome.predict(tmp_path / "city.tif", run, flip=False, device="cpu", precision=FP32).classes
    run_here(
        *BASE,
        "stage.predict.scene=city.tif",
        "stage.predict.crf=true",
        f"crf.backend={backend}",
        "stage.predict.threads=1",
        "crf.iterations=0",
    )
    same = classes_of(run / "predict/city/city.tif")
    assert (same == plain).mean() > 0.999, "a CRF of no iterations is the softmax again"
    run_here(
        *BASE,
        "stage.predict.scene=city.tif",
        "stage.predict.crf=true",
        f"crf.backend={backend}",
        "stage.predict.threads=1",
        "crf.gaussian_sxy=5",
    )
    smooth = classes_of(run / "predict/city/city.tif")
    changes = [(np.diff(classes.astype(int)) != 0).sum() for classes in (plain, smooth)]
    assert changes[1] < changes[0]


def test_the_latest_network_is_taken(tmp_path: Path) -> None:
    def folders(*runs: Path) -> list[Path]:
        return [run / stage for run in runs for stage in SEGMENTER_STAGES]

    run, parent = tmp_path / "run", tmp_path / "parent"
    assert stage_of_network(None, folders(run)) == "seg"
    make_run(parent, "refine", "round_1")
    assert stage_of_network(None, folders(run, parent)) == "refine"
    make_run(run, "seg", "full")
    assert stage_of_network(None, folders(run, parent)) == "seg"
    assert network_folder(run / "seg", None).name == "full"
    make_run(run, "seg", "weak")
    assert network_folder(run / "seg", None).name == "weak"
    Manifest("refine", "of no rounds", {}, {}).write(run / "refine")
    assert stage_of_network(None, folders(run, parent)) == "seg"
    for number in (2, 10):
        make_run(run, "refine", f"round_{number}")
    assert stage_of_network(None, folders(run, parent)) == "refine"
    assert network_folder(run / "refine", None).name == "round_10"
    assert stage_of_network("weak", folders(run)) == "seg"
    assert network_folder(run / "refine", "round_2").name == "round_2"
    with pytest.raises(UserError, match="no segmenter round_3: choose one of round_2, round_10"):
        network_folder(run / "refine", "round_3")
    with pytest.raises(UserError, match=r"^network=best: choose weak, full, round_1"):
        stage_of_network("best", folders(run))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "stage.predict.scene is not set: type stage.predict.scene=/path/to/scene.tif"),
        (["stage.predict.scene=nowhere.tif"], "stage.predict.scene=nowhere.tif does not exist"),
        (["stage.predict.scene=empty"], "empty holds no GeoTIFF"),
        (
            ["stage.predict.scene=city.tif", "stage.predict.network=round_1"],
            "needs the result of stage=refine",
        ),
        (["stage.predict.scene=city.tif", "dataset.channels=[1]"], "the network was trained on 3 bands"),
        (
            ["stage.predict.scene=city.tif", "dataset.channels=[1,2,5]"],
            "city.tif has 3 bands, and the network expects",
        ),
        (
            ["stage.predict.scene=city.tif", "prediction.stride=0"],
            "prediction.stride=0: expected",
        ),
        (["stage.predict.scene=city.tif", "stage.predict.simplify=-1"], "stage.predict.simplify=-1"),
    ],
)
def test_mistakes_are_one_line(run_here: Run, tmp_path: Path, overrides: list[str], message: str) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "city.tif", random_scene(20, 20))
    with pytest.raises(UserError) as raised:
        run_here(*BASE, *overrides)
    assert message in str(raised.value)
    assert not (tmp_path / "run/predict/city").exists()


def test_rounds_of_another_run_do_not_stand_for_a_newer_segmenter(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (other / "refine", mine / "seg", mine / "logs/refine"):
        folder.mkdir(parents=True)
    Manifest("refine", "round", {}, {"seg": "shared"}).write(other / "refine")
    note_inherited(mine / "logs/refine", other / "refine", "round")
    for own, expected in (("shared", [other / "refine", mine / "seg"]), ("newer", [mine / "seg"])):
        Manifest("seg", own, {}, {}).write(mine / "seg")
        assert segmenter_stages(mine) == expected


def test_what_is_not_installed_is_named(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run")
    write(tmp_path / "city.tif", random_scene(20, 20))
    real = importlib.util.find_spec
    packages = ("pyogrio", "onnxruntime")
    monkeypatch.setattr("ome.extras.find_spec", lambda name: None if name in packages else real(name))
    with pytest.raises(
        UserError, match=r'stage\.predict\.polygons=true needs pyogrio: pip install "ome\[vector\]"'
    ):
        run_here(*BASE, "stage.predict.scene=city.tif", "stage.predict.polygons=true")
    with pytest.raises(UserError, match=r'stage=export needs onnxruntime: pip install "ome\[export\]"'):
        run_here("stage=export", *BASE[1:])


def small_segmenter() -> Segmenter:
    """A segmenter that is exported in a moment."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 5, stride=4, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(4, 48, 1)
    return Segmenter(torch.nn.Sequential(*layers, torch.nn.PixelShuffle(4))).eval()


def test_a_network_for_images_of_one_size(tmp_path: Path) -> None:
    """What is left where a format cannot have all sizes."""
    network = small_segmenter()
    save_program(tmp_path / "fixed.pt2", trace(network, 3, 64), {})
    fixed = load_program(tmp_path / "fixed.pt2")
    assert largest_difference(network, fixed, 3) == np.inf
    assert largest_difference(network, fixed, 3, [(1, 64, 64), (2, 64, 64)]) < 1e-6
    assert largest_difference(small_segmenter(), lambda image: network(image) + 1, 3) > 0.9


def test_an_exported_network_says_the_same(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, network = make_run(tmp_path / "run"), small_segmenter()
    monkeypatch.setattr(SegmenterCard, "load", lambda *_: network)
    run_here("stage=export", *BASE[1:])
    manifest = Manifest.read(run / "export")
    assert manifest is not None
    assert max(manifest.counts["largest_difference"].values()) < 1e-4
    model = onnx.load(run / "export/segmenter.onnx")
    described = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert described["classes"] == list(TRAINED.classes)
    assert described["side"] is None
    # As somebody would who knows nothing but the metadata.
    pixels = random_scene(96, 160)
    normalised = (np.moveaxis(pixels, 0, -1) / 255 - described["mean"]) / described["std"]
    image = torch.from_numpy(np.moveaxis(normalised, -1, 0)[None].astype(np.float32))
    with torch.no_grad():
        expected = network(to_tensor(pixels.transpose(1, 2, 0))[None])
    for name, load in (("segmenter.onnx", load_onnx), ("segmenter.pt2", load_program)):
        torch.testing.assert_close(load(run / "export" / name)(image), expected, atol=1e-4, rtol=1e-4)
    # As docs/maps.md reads it.
    write(tmp_path / "city.tif", pixels := random_scene(300, 300))
    page = (Path(__file__).parents[1] / "docs/maps.md").read_text(encoding="utf-8")
    (block,) = (part for part in page.split("```")[1::2] if "InferenceSession" in part)
    names: dict[str, Any] = {}
    exec(block.removeprefix("python").replace("runs/valley", "run"), names)  # noqa: S102
    with torch.no_grad():
        whole = network(to_tensor(np.ascontiguousarray(pixels[:, :256, :256].transpose(1, 2, 0)))[None])
    np.testing.assert_allclose(names["logits"], whole.numpy(), atol=1e-4)


def test_the_stages_of_the_story_do_not_map_or_export() -> None:
    assert not {"predict", "export"} & set(STAGES)


def test_importing_the_package_loads_no_torch() -> None:
    script = "import sys, ome; ome.__version__; ome.__all__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'predicted'"):
        ome.predicted  # noqa: B018


@pytest.mark.parametrize("name", ["new\nline", "tab\there", "a\u2028b", "\x1bred"])
@pytest.mark.parametrize("typed", [(), ("stage.predict.map_name=plain",)], ids=["its name", "another"])
def test_a_scene_whose_name_breaks_lines_is_refused(
    run_here: Run, tmp_path: Path, name: str, typed: tuple[str, ...]
) -> None:
    run = make_run(tmp_path / "run")
    write(tmp_path / f"{name}.tif", random_scene(40, 40))
    with pytest.raises(UserError, match="has a line break or another control character in it: rename it"):
        run_here(*BASE, f"stage.predict.scene='{name}.tif'", *typed)
    assert not list((run / "predict").glob("*"))


def test_maps_of_two_scenes_of_one_name(run_here: Run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for place in "ab":
        (tmp_path / place).mkdir()
        write(tmp_path / place / "city.tif", random_scene(40, 40 + ord(place)))
    run_here(*BASE, "stage.predict.scene=a/city.tif")
    first = Manifest.read(run / "predict/city")
    assert first is not None
    assert "map_name" not in first.config["stage"]  # so that maps made before there was this setting are kept
    with pytest.raises(UserError, match=r"choose another name, --name NAME or stage\.predict\.map_name=NAME"):
        run_here(*BASE, "stage.predict.scene=b/city.tif")
    named = [*BASE, "stage.predict.scene=b/city.tif", "stage.predict.map_name='b 2'"]
    run_here(*named)
    assert {"b 2.tif", "b 2.qml", "b 2_areas.csv"} <= {path.name for path in (run / "predict/b 2").iterdir()}
    assert [classes_of(path).shape[1] for path in sorted(run.glob("predict/*/*.tif"))] == [138, 137]
    assert Manifest.read(run / "predict/city") == first
    for name, remedy in (("x/y", "type another"), (".x", "type another"), ("x.partial", "another name")):
        with pytest.raises(UserError, match=remedy):
            run_here(*named, f"stage.predict.map_name={name}")
    assert sorted(path.name for path in (run / "predict").glob("[!.]*")) == ["b 2", "city"]
