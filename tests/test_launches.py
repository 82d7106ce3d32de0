"""A training step never waits for the device: it reads no number off it and copies none to it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from launches import Launches
from torch.utils.data import DataLoader

from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import build_segmenter
from ome.training.averaging import averaging
from ome.training.clipping import ClippedModule
from ome.training.fit import fit
from ome.training.hardware import Hardware
from ome.training.optimizers import Optimization, OptimizerName
from ome.training.pixel_losses import lovasz_softmax
from ome.training.recorders import LOG_EVERY
from ome.training.seam import SeamClassifier
from ome.training.segmenter import UncertaintyWeightedSegmenter
from ome.training.underfitting import PretendedUnderfitting

SILENT = (2, LOG_EVERY - 1)
"""Steps that log nothing: the first of them, and the first after them."""


class Samples(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        mask = torch.randint(0, 3, (2, 32, 32), generator=torch.Generator().manual_seed(0))
        mask[:, :3] = 255
        batch: Any = {"image": torch.randn(2, 3, 32, 32), "tags": torch.ones(2, 3), "mask": mask}
        batch["weight"] = torch.full_like(mask, 255, dtype=torch.uint8)
        return DataLoader([batch] * LOG_EVERY, batch_size=None)


class Watching(pl.Callback):
    def __init__(self, launches: Launches) -> None:
        self._launches = launches

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        del trainer, module, batch
        if batch_idx == SILENT[0]:
            self._launches.__enter__()
        if batch_idx == SILENT[1]:
            self._launches.__exit__(None, None, None)


def classifier(**settings: Any) -> SeamClassifier:  # noqa: ANN401
    network = SeamNetwork(build_backbone("mobilenet_v2", None, 16), 3, pcm=settings.pop("pcm", True))
    return SeamClassifier(network, ["a", "b", "c"], total_steps=100, clip=1.0, **settings)


def segmenter(optimizer: OptimizerName = "sgd", **loss: Any) -> UncertaintyWeightedSegmenter:  # noqa: ANN401
    return UncertaintyWeightedSegmenter(
        build_segmenter("deeplabv3plus", "mobilenet_v2", 3),
        total_steps=100,
        optimizer=Optimization(name=optimizer),
        loss=loss,
    )


MODULES: dict[str, Any] = {
    "seam": classifier,
    "cam": lambda: classifier(pcm=False, er_weight=0.0, rescale=(0.75, 1.33)),
    "plain segmenter": segmenter,
    "rare settings": lambda: segmenter(
        optimizer="adamw",
        class_weights=[1.0, 2.0, 3.0],
        ohem=0.5,
        underfit=PretendedUnderfitting("pow"),
        label_smoothing=0.1,
    ),
}


class Strict(pl.Callback):
    """Lets torch refuse whatever waits for the GPU in the silent steps."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        del trainer, module, batch
        if batch_idx in SILENT:
            torch.cuda.set_sync_debug_mode("error" if batch_idx == SILENT[0] else "default")


def train(name: str, folder: Path, accelerator: str, callback: pl.Callback) -> None:
    settings: dict[str, Any] = {"epochs": 1, "total_steps": LOG_EVERY, "title": "tiny", "seed": 0}
    callbacks = [*averaging(0.1, 100), callback]
    fit(
        MODULES[name](),
        Samples(),
        folder=folder,
        hardware=Hardware(accelerator),
        callbacks=callbacks,
        **settings,
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_step_waits_for_nothing(tmp_path: Path, name: str) -> None:
    launches = Launches()
    train(name, tmp_path, "cpu", Watching(launches))
    assert launches.kernels.total() > 500
    assert not launches.waits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("name", MODULES)
def test_a_step_on_a_gpu_waits_for_nothing(tmp_path: Path, name: str) -> None:
    try:
        train(name, tmp_path, "gpu", Strict())
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_a_scaled_gradient_waits_for_nothing(algorithm: str) -> None:
    """As under 16-mixed, whose scale is on the device."""
    torch.manual_seed(0)
    module, scaler = ClippedModule(), torch.amp.GradScaler("cpu", init_scale=512.0)
    module.network = torch.nn.Linear(3, 4)
    gradients = [torch.randn_like(parameter) for parameter in module.parameters()]
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        parameter.grad = scaler.scale(gradient)
    module._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))  # type: ignore[assignment]
    with Launches() as launches:
        norm = module.clip(0.5, algorithm)
    assert not launches.waits
    length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        expected = gradient.clamp(-0.5, 0.5) if norm is None else gradient * 0.5 / length
        torch.testing.assert_close(parameter.grad, 512.0 * expected)
    if norm is not None:
        torch.testing.assert_close(norm, length)


def test_the_lovasz_loss_of_a_device_waits_for_nothing() -> None:
    with Launches() as launches:
        lovasz_softmax(torch.rand(3, 20), torch.randint(0, 3, (20,)))
    assert not launches.waits
