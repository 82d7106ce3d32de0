"""Compiled trainings compute what eager ones do: to rounding, or byte by byte where compiling fails."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import Segmenter
from ome.training.averaging import averaging
from ome.training.clipping import ClippedModule
from ome.training.fit import fit
from ome.training.hardware import Hardware
from ome.training.optimizers import Optimization
from ome.training.passes import Context, passes
from ome.training.seam import SeamClassifier
from ome.training.segmenter import UncertaintyWeightedSegmenter
from tests.test_networks import TinyBackbone

STEPS = 4
BATCH = 4
SIDE = 32


class Maps(nn.Module):
    """The same features as a list, as encoders of segmentation-models-pytorch return them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyBackbone()

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.backbone(image))


class TinySegmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Maps()
        self.dropout = nn.Dropout2d(0.5)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.head(self.dropout(self.encoder(image)[-1])), image.shape[2:])


def classifier(**settings: Any) -> SeamClassifier:  # noqa: ANN401
    network = SeamNetwork(TinyBackbone(), 3, pcm=settings.pop("pcm", True))
    rate = Optimization(lr=0.01)
    return SeamClassifier(network, ["a", "b", "c"], total_steps=STEPS, optimizer=rate, **settings)


def segmenter(auxiliary: nn.Module | None = None) -> UncertaintyWeightedSegmenter:
    rate = Optimization(lr=0.1)
    network = Segmenter(TinySegmenter())
    return UncertaintyWeightedSegmenter(network, total_steps=STEPS, optimizer=rate, auxiliary=auxiliary)


MODULES: dict[str, tuple[int, Callable[[], Any]]] = {
    "SEAM": (2, classifier),
    "plain CAM, resized": (3, lambda: classifier(pcm=False, er_weight=0.0, rescale=(0.5, 1.5))),
    "segmenter": (1, segmenter),
    "segmenter with auxiliary head": (1, lambda: segmenter(nn.Conv2d(6, 3, 1))),
}
"""The number of sizes of images that its network sees, and the module."""


class Samples(pl.LightningDataModule):
    """The same batches at every run, also for validation."""

    def train_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(0)
        mask = torch.randint(0, 3, (BATCH, SIDE, SIDE), generator=generator)
        batch: dict[str, Tensor] = {"mask": mask, "weight": torch.full_like(mask, 255, dtype=torch.uint8)}
        batch["tags"] = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]).repeat(BATCH // 2, 1)
        images = torch.randn(STEPS // 2, BATCH, 3, SIDE, SIDE, generator=generator)
        batches: Any = [batch | {"image": image} for image in images]
        return DataLoader(batches, batch_size=None)

    val_dataloader = train_dataloader


class Keys(pl.Callback):
    """Keeps the names of everything in a checkpoint."""

    def __init__(self) -> None:
        self.names: Any = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        self.names = _names(trainer._checkpoint_connector.dump_checkpoint())


def _names(value: Any) -> Any:  # noqa: ANN401
    return {name: _names(part) for name, part in value.items()} if isinstance(value, dict) else type(value)


def train(name: str, folder: Path, precision: str = "32-true", **hardware: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Trains for two epochs; returns the average of the weights, and the names in a checkpoint."""
    torch.manual_seed(0)
    module, keys = MODULES[name][1](), Keys()
    fit(
        module,
        Samples(),
        epochs=2,
        total_steps=STEPS,
        folder=folder,
        title="tiny",
        seed=0,
        hardware=Hardware("cpu", precision=precision, **hardware),
        callbacks=[*averaging(0.5, STEPS), keys],
    )
    assert "forward" not in vars(module.network)
    return module.state_dict(), keys.names


class Backend:
    """A backend that runs the captured graph as it is, or with a fault, and counts the graphs."""

    def __init__(self, fault: Callable[[Tensor], Tensor] = lambda output: output) -> None:
        self.graphs = 0
        self._fault = fault

    def __call__(self, graph: Any, inputs: Any) -> Any:  # noqa: ANN401
        del inputs
        self.graphs += 1
        return lambda *arguments: [self._fault(output) for output in graph(*arguments)]


def wrong_gradients(output: Tensor) -> Tensor:
    return 1.5 * output - 0.5 * output.detach()


def raising(output: Tensor) -> Tensor:
    raise RuntimeError(f"cannot compile\n{output.dtype}")


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ome.training.compiling.WORTH", 1)


@pytest.mark.parametrize("name", MODULES)
def test_a_compiled_training_is_an_eager_one_to_rounding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Backend()
    monkeypatch.setattr("ome.training.compiling.BACKEND", backend)
    eager, names = train(name, tmp_path / "eager")
    compiled, same_names = train(name, tmp_path / "compiled", compile=True)
    assert 1 <= backend.graphs <= MODULES[name][0]  # none for validation; a size may never be drawn
    assert "not compiled" not in capsys.readouterr().out
    assert same_names == names
    torch.testing.assert_close(compiled, eager)


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trains SEAM without a compiler, once in each precision."""

    @cache
    def trained(precision: str) -> Path:
        folder = tmp_path_factory.mktemp("eager")
        train("SEAM", folder, precision)
        return folder

    return trained


@pytest.mark.parametrize(
    ("precision", "fault", "line"),
    [
        ("32-true", wrong_gradients, "its outputs or gradients would differ by"),
        ("32-true", lambda output: 2 * output, "its outputs or gradients would differ by"),
        ("32-true", lambda output: output * torch.nan, "its outputs or gradients would differ by nan times"),
        ("32-true", raising, "torch.compile fails (RuntimeError: cannot compile torch."),
        ("bf16-mixed", wrong_gradients, "its outputs or gradients would differ by"),
    ],
)
def test_with_a_wrong_compiler_a_training_is_an_eager_one_byte_by_byte(
    precision: str,
    fault: Callable[[Tensor], Tensor],
    line: str,
    eager: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected, backend = eager(precision), Backend(fault)
    monkeypatch.setattr("ome.training.compiling.BACKEND", backend)
    assert "not compiled" not in capsys.readouterr().out
    train("SEAM", tmp_path, precision, compile=True)
    assert f"tiny is not compiled: {line}" in capsys.readouterr().out
    assert backend.graphs
    for file in ("network.pt", "history.csv"):
        assert (tmp_path / file).read_bytes() == (expected / file).read_bytes()


@pytest.mark.parametrize("fitting", [BATCH // 2, 0])
def test_a_comparison_without_autocast_needs_memory_for_half_a_batch_or_is_left_out(
    fitting: int,
    eager: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def in_little_memory(module: ClippedModule, image: Tensor, context: Context) -> Any:  # noqa: ANN401
        if context is nullcontext and len(image) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return passes(module, image, context)

    expected, backend = eager("bf16-mixed"), Backend()
    monkeypatch.setattr("ome.training.compiling.BACKEND", backend)
    monkeypatch.setattr("ome.training.passes.passes", in_little_memory)
    assert "not compiled" not in capsys.readouterr().out
    train("SEAM", tmp_path, "bf16-mixed", compile=True)
    line = "tiny is not compiled: torch.compile fails (OutOfMemoryError: CUDA out of memory)"
    assert (line in capsys.readouterr().out) == (fitting == 0)
    assert bool(backend.graphs) == (fitting > 0)
    if fitting == 0:
        for file in ("network.pt", "history.csv"):
            assert (tmp_path / file).read_bytes() == (expected / file).read_bytes()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("segmenter", "its 4 steps are fewer than 5\n"),
        ("plain CAM, resized", "its 4 steps are fewer than 5 for each of 3 sizes of images\n"),
    ],
)
def test_a_short_training_is_not_compiled(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Backend()
    monkeypatch.setattr("ome.training.compiling.BACKEND", backend)
    monkeypatch.setattr("ome.training.compiling.WORTH", STEPS + 1)
    train(name, tmp_path, compile=True)
    assert f"tiny is not compiled: {line}" in capsys.readouterr().out
    assert not backend.graphs


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", MODULES)
def test_inductor_agrees_to_rounding(
    name: str, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eager, _ = train(name, tmp_path / "eager", precision)
    compiled, _ = train(name, tmp_path / "compiled", precision, compile=True)
    assert "not compiled" not in capsys.readouterr().out
    exact = precision == "32-true"
    torch.testing.assert_close(compiled, eager, **({} if exact else {"rtol": 0.05, "atol": 0.01}))
