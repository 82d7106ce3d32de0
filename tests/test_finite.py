"""Networks and outputs that are nan or infinite end in one line wherever they are saved, scored or mapped."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from ome.config import evaluating
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.inference.classifier import CamPredictor
from ome.inference.predictor import CrfPredictor, Predictor
from ome.inference.tag_probabilities import tag_probabilities
from ome.networks.seam import SeamNetwork
from ome.pipeline.stage import Work
from ome.scoring.multilabel import multilabel_scores
from ome.stages import refine
from ome.training.checkpoints import save_network
from tests.test_callbacks import trained
from tests.test_maps import make_map, random_scene, write
from tests.test_networks import TinyBackbone

CPU, TILE = torch.device("cpu"), Tile("a", 0, 0, 16, 16)
TAGS = np.ones((1, 3), np.uint8)
TABLE = TagTable(("a", "b", "c"), (TILE,), TAGS, ("train",), np.ones(1, dtype=bool))
IMAGE = np.ones((16, 16, 3), np.uint8)
READER: Any = SimpleNamespace(
    image=lambda _: IMAGE,
    mask=lambda _: np.zeros((16, 16), np.uint8),
    valid=lambda _: np.ones((16, 16), bool),
)


class Constant(torch.nn.Module):
    """Logits of three classes, of which the last is one value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 3, *images.shape[2:])
        logits[:, 2] = self.value
        return logits


def segmenter(value: float) -> Predictor:
    return Predictor(Constant(value), CPU, (0.5, 1.0), flip=True)


def classifier(value: float) -> SeamNetwork:
    network = SeamNetwork(TinyBackbone(), 3, pcm=False, zoom=1.0).eval()
    torch.nn.init.constant_(network.fc8.weight, value)
    return network


def maps(value: float, folder: Path, **options: Any) -> object:  # noqa: ANN401
    return make_map(
        write(folder / "city.tif", random_scene(70, 90)), folder / "map", predict=segmenter(value), **options
    )


def refined(value: float, folder: Path) -> object:
    """The maps from which a round makes its pseudo masks."""
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine, "card_of", lambda *_: None)
        patch.setattr(refine, "predictor_of", lambda *_, **__: segmenter(value))
        patch.setattr(refine, "labeller_of", lambda _: None)
        patch.setattr(refine, "write_pseudo_labels", lambda *given, **_: made.extend(given[3]([TILE])))
        settings = {"confident": None, "cams": None, "scales": [1.0], "flip": False, "threads": 1}
        config = DictConfig({"stage": settings})
        work = Work(config, folder, {}, folder, DictConfig({}))
        refine._label(work, folder, folder, folder, READER, TABLE)
    return made


def cams(value: float, *, compete: bool) -> object:
    export = {"scales": [1.0], "flip": True, "precision": "32-true", "megapixels": None, "compete": compete}
    return list(CamPredictor(CPU, classifier(value), READER, TABLE, export)([TILE]))


def validated(value: float) -> object:
    return multilabel_scores(torch.tensor([[value, 0.0], [1.0, 2.0]]), torch.tensor([[1, 0], [0, 1]]))


USES: dict[str, Callable[[float, Path], object]] = {
    "maps": maps,
    "maps of classes alone": lambda value, folder: maps(value, folder, stride=1.0),
    "maps of probabilities": lambda value, folder: maps(value, folder, probabilities=True),
    "CRF on windows": lambda value, _: CrfPredictor(
        segmenter(value), lambda _: SimpleNamespace(infer=lambda one: one), (0, 1, 2), 1
    )(IMAGE[None]),
    "calibration": lambda value, _: evaluating._pixels(segmenter(value), READER, TILE),
    "rounds": refined,
    "CAMs": lambda value, _: cams(value, compete=False),
    "competing CAMs": lambda value, _: cams(value, compete=True),
    "scores of tags": lambda value, _: tag_probabilities(classifier(value), READER, [TILE], CPU, "tags"),
    "validation of the classifier": lambda value, _: validated(value),
    "saved network": lambda value, folder: save_network(classifier(value), folder),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("use", USES)
def test_what_is_no_number_is_one_line_wherever_it_is_used(use: str, value: float, tmp_path: Path) -> None:
    line = r"are nan or infinite.*: (predict in float32|lower the learning rate)"
    with pytest.raises(UserError, match=line) as raised:
        USES[use](value, tmp_path)
    assert "\n" not in str(raised.value)
    assert not [*tmp_path.rglob("network.pt"), *tmp_path.rglob("map/city.tif")]


@pytest.mark.parametrize("use", USES)
def test_numbers_are_used(use: str, tmp_path: Path) -> None:
    USES[use](1.0, tmp_path)


class Overflow(pl.Callback):
    """The last step leaves an infinite weight, though its loss was a number."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            next(pl_module.parameters()).data.fill_(torch.inf)


def test_a_training_whose_last_step_goes_wrong_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"network\.pt are nan or infinite \(.*\): lower the learning rate"):
        trained(tmp_path, Overflow())
    assert not (tmp_path / "network.pt").exists()
