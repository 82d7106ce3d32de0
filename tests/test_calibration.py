"""Temperature of probabilities: recovered where it is known, and what maps say of their confidence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from scipy.special import softmax

import ome
from ome.config.evaluating import evaluate_segmenter
from ome.config.sections import scene_reader, settings_of
from ome.config.segmenting import card_of
from ome.data.scene_index import SceneIndex
from ome.inference.card import SegmenterCard
from ome.inference.predictor import Predictor
from ome.pipeline.layout import map_path
from ome.pipeline.manifest import Manifest
from ome.scoring.temperature import RANGE, calibration_error, fit_temperature, with_temperature
from ome.training.checkpoints import save_network
from tests.archives import read_class_map
from tests.conftest import tiny
from tests.test_maps import UTM, make_map, random_scene, write
from tests.trained_runs import CARD


def labelled(sharpness: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities of four classes from logits times a factor, and labels drawn without it."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (40_000, 4))
    sums = softmax(logits, axis=1).cumsum(axis=1)
    labels = (generator.random((len(sums), 1)) > sums).sum(axis=1).clip(max=3)
    return softmax(sharpness * logits, axis=1).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_recovered_and_calibrates(sharpness: float) -> None:
    probabilities, labels = labelled(sharpness)
    temperature = fit_temperature(probabilities, labels)
    assert temperature == pytest.approx(sharpness, rel=0.03)
    calibrated = with_temperature(torch.from_numpy(probabilities.T), temperature).numpy().T
    np.testing.assert_allclose(calibrated, labelled(1.0)[0], atol=0.02)
    assert calibration_error(calibrated, labels) < 0.01


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_certain_probabilities_have_a_temperature_in_range(probability: float) -> None:
    right = np.array([[probability, 1 - probability]] * 5, np.float32)
    assert RANGE[0] <= fit_temperature(right, np.zeros(5, np.int64)) <= RANGE[1]


def test_error_by_hand() -> None:
    # Two ranges: of three pixels at .6 one is right, gap .6 - 1/3; of one at 1 all: no gap.
    probabilities = np.array([[0.6, 0.4]] * 3 + [[1.0, 0.0]], np.float32)
    assert calibration_error(probabilities, np.array([0, 1, 1, 0])) == pytest.approx((1.8 - 1) / 4, abs=1e-6)


def test_nothing_predicted_stays_nothing() -> None:
    assert not with_temperature(torch.zeros(3, 2), 2.0).any()


def test_a_calibrated_map_has_the_same_classes_and_says_so(tmp_path: Path) -> None:
    scene = write(tmp_path / "city.tif", random_scene(70, 90), transform=UTM)
    bands: dict[str, Any] = {}
    for name, temperature in (("raw", None), ("warm", 2.0)):
        card = SegmenterCard(**CARD.__dict__ | {"temperature": temperature})
        make_map(scene, tmp_path / name, card, confidence=True, probabilities=True)
        for kind in ("city", "city_confidence", "city_probabilities"):
            with rasterio.open(tmp_path / name / f"{kind}.tif") as raster:
                bands[name, kind] = raster.read()
                bands[name, f"{kind} says"] = raster.descriptions[0]
    np.testing.assert_array_equal(bands["raw", "city"], bands["warm", "city"])
    assert bands["raw", "city_confidence says"] == "confidence, not calibrated"
    assert bands["warm", "city_confidence says"] == "confidence, calibrated on val by temperature 2.00"
    raw = bands["raw", "city_probabilities"] / 254
    expected = np.sqrt(raw) / np.sqrt(raw).sum(axis=0)
    np.testing.assert_allclose(bands["warm", "city_probabilities"] / 254, expected, atol=0.01)
    np.testing.assert_allclose(bands["warm", "city_confidence"][0] / 254, expected.max(axis=0), atol=0.01)


@pytest.mark.parametrize("val", [[], ["2_12"]])
def test_the_card_has_a_temperature_where_val_has_masks(
    tmp_path: Path,
    run_here: Callable[..., DictConfig],
    capsys: pytest.CaptureFixture[str],
    val: list[str],
) -> None:
    split = [f"dataset.split.val={val}".replace("'", ""), "dataset.split.train=[2_10,2_11]"]
    config = settings_of(run_here(*tiny("prepare"), *split), "seg")
    reader = scene_reader(config, SceneIndex.read(Path(config.scenes)))
    torch.manual_seed(0)
    card = card_of(config, reader)
    save_network(card.build(), tmp_path)
    card.write(tmp_path)
    (row,) = evaluate_segmenter(config, tmp_path, reader, "weak segmentation")
    assert row.where == "test scenes"
    result = SegmenterCard.read(tmp_path)
    assert (result.temperature is not None) == bool(val)
    assert result.uncalibrated() == card
    assert ("weak segmentation: confidence calibrated on" in capsys.readouterr().out) == bool(val)
    views: Any = {"scales": config.prediction.scales, "flip": config.prediction.flip, "tta": None}
    assert result.for_views(**views) == result
    for other in ({"scales": [1.0, 1.5]}, {"flip": not views["flip"]}, {"tta": "d4"}):
        assert result.for_views(**views | other).calibration == "not calibrated"
    assert evaluate_segmenter(config, tmp_path, reader, "again")[0].scores.miou == row.scores.miou
    assert "calibrated" not in capsys.readouterr().out


def test_a_segmenter_is_calibrated_and_scored_in_the_windows_of_its_maps(
    tmp_path: Path, run_here: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = ["dataset.split.val=[2_12]", "dataset.split.train=[2_10,2_11]"]
    config = settings_of(run_here(*tiny("prepare"), *split), "seg")
    reader = scene_reader(config, SceneIndex.read(Path(config.scenes)))
    card, predict, sides = card_of(config, reader), Predictor.__call__, set[int]()

    def watched(self: Predictor, images: NDArray[np.uint8]) -> torch.Tensor:
        sides.add(images.shape[1])
        return predict(self, images)

    monkeypatch.setattr(Predictor, "__call__", watched)
    (scene,) = reader.index.split("test")
    folder, config.prediction.scales = tmp_path / "seg/weak", [0.5]
    save_network(card.build(), folder)
    replace(card, temperature=77.0, views="2").write(folder)
    evaluate_segmenter(config, folder, reader, "weak segmentation")
    assert sides == {2 * card.tile}
    result = SegmenterCard.read(folder)
    assert result.temperature not in {None, 77.0}, "that of other views is fitted again"
    assert result.uncalibrated() == card
    Manifest("seg", "", {"prediction": OmegaConf.to_container(config.prediction)}, {}).write(tmp_path / "seg")
    image = Path(config.scenes) / scene.image
    expected = ome.predict(image, tmp_path, device="cpu", precision="32-true").classes
    np.testing.assert_array_equal(read_class_map(map_path(folder, scene)), expected)
