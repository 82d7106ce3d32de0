"""What the Lightning modules add to the losses: the schedule, what is frozen, and the divisor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.connectors import accelerator_connector
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from ome.data.datamodules import TileDataModule
from ome.data.datasets import Batch
from ome.data.tiles import Tile
from ome.files import read_csv
from ome.training.fit import fit
from ome.training.hardware import Hardware
from ome.training.optimizers import Optimization
from ome.training.pixel_losses import overlap_loss
from ome.training.segmenter import UncertaintyWeightedSegmenter
from ome.training.segmenter_loss import SegmenterLoss


class Pixelwise(nn.Module):
    """Two classes from one band, by one weight each; with a BatchNorm in its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.BatchNorm2d(1)
        self.head = nn.Conv2d(1, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(image)
        return logits

    def with_auxiliary(self, image: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
        return self(image), head(image)


def sorted_out(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by the object to which they belong."""
    rates = {name for name in settings if name in Optimization.__dataclass_fields__}
    module_names = {name for name in settings if name in {"head_lr", "auxiliary", "freeze_batchnorm"}}
    arguments = {name: settings[name] for name in module_names}
    arguments["optimizer"] = Optimization(**{name: settings[name] for name in rates})
    rest = {name: value for name, value in settings.items() if name not in rates | module_names}
    return arguments | {"loss": SegmenterLoss(**rest)}


def module(**settings: Any) -> UncertaintyWeightedSegmenter:  # noqa: ANN401
    torch.manual_seed(0)
    learner = UncertaintyWeightedSegmenter(Pixelwise(), total_steps=10, **sorted_out(settings))
    learner.log = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
    return learner


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 1, 2, 3, generator=generator)
    mask = torch.tensor([[[0, 1, 255], [1, 0, 1]]])
    weight = torch.tensor([[[255, 51, 255], [0, 102, 10]]], dtype=torch.uint8)
    return {"image": image, "mask": mask, "weight": weight}


def reloaded(module: pl.LightningModule, path: Path) -> Any:  # noqa: ANN401
    """The module that a checkpoint of another gives, with nothing else at hand."""
    trainer: Any = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    loaded = type(module).load_from_checkpoint(path, weights_only=True)
    assert loaded.hparams == module.hparams
    return loaded


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        ("none", [1, 1, 0, 1, 1, 1]),
        ("continuous", [1, 0.2, 0, 0, 0.4, 10 / 255]),
        ("threshold", [1, 1, 0, 0.05, 1, 0.05]),
    ],
)
def test_the_loss_of_a_hand_worked_batch(weighting: str, weights: list[float]) -> None:
    learner = module(weighting=weighting)
    image, mask, _ = batch().values()
    logits = learner.network(image).permute(0, 2, 3, 1).reshape(6, 2)
    target = mask.flatten().clamp_max(1)
    entropy = F.cross_entropy(logits, target, reduction="none")
    divisor = 5.0 if weighting == "threshold" else max(1.0, sum(weights))
    expected, loss = (entropy * torch.tensor(weights)).sum() / divisor, learner.training_step(batch())
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(one, learner.network.head.weight) for one in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert learner.auxiliary is None


def entropies(head: nn.Module) -> Tensor:
    """Cross-entropy of the six pixels of `batch`, as if none were ignored."""
    image, mask, _ = batch().values()
    logits = head(image).permute(0, 2, 3, 1).reshape(6, 2)
    return F.cross_entropy(logits, mask.flatten().clamp_max(1), reduction="none")


def test_the_auxiliary_loss_has_the_weights_and_the_divisor_of_the_main_one() -> None:
    learner = module(auxiliary=nn.Conv2d(1, 2, 1), auxiliary_weight=0.4)
    weights = torch.tensor([1, 0.2, 0, 0, 0.4, 10 / 255])
    entropy = entropies(learner.network.head) + 0.4 * entropies(learner.auxiliary)
    expected = (entropy * weights).sum() / weights.sum()
    torch.testing.assert_close(learner.training_step(batch()), expected)


def test_the_hardest_pixels_are_divided_by_their_own_weights() -> None:
    learner = module(ohem=0.5)
    weights = torch.tensor([1, 0.2, 0, 0, 0.4, 10 / 255])
    loss = entropies(learner.network.head) * weights
    # Four pixels have weight; half of them are two.
    hardest = loss.argsort(descending=True)[:2]
    expected = loss[hardest].sum() / weights[hardest].sum().clamp_min(1)
    torch.testing.assert_close(learner.training_step(batch()), expected)


def test_overlap_losses_are_added_to_the_mean() -> None:
    image, mask, weight = batch().values()
    plain, both = module().training_step(batch()), module(dice=0.5, lovasz=2).training_step(batch())
    added = overlap_loss(module().network(image), mask, weight, dice=0.5, lovasz=2)
    torch.testing.assert_close(both, plain + added)


def test_the_head_learns_faster_and_norms_do_not_decay_when_asked() -> None:
    network = nn.Module()
    network.encoder = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    network.head = nn.Sequential(nn.GroupNorm(1, 2), nn.Conv2d(2, 2, 1))
    auxiliary = nn.Conv2d(2, 2, 1)
    settings: Any = {"lr": 0.1, "weight_decay": 0.01, "auxiliary": auxiliary}

    def groups(**more: Any) -> list[tuple[float, float, int]]:  # noqa: ANN401
        arguments = sorted_out(settings | more)
        module = UncertaintyWeightedSegmenter(network, total_steps=10, **arguments)
        optimization: Any = module.configure_optimizers()
        parameters = optimization["optimizer"].param_groups
        return [(group["initial_lr"], group["weight_decay"], len(group["params"])) for group in parameters]

    assert groups() == [(0.1, 0.01, 4), (0.1, 0.01, 6)]
    assert groups(name="adamw", head_lr=10.0, norm_decay=False) == [
        (0.1, 0.01, 2),
        (0.1, 0.0, 2),
        (1.0, 0.0, 2),
        (1.0, 0.01, 4),
    ]


def test_warm_up_leads_to_the_schedule() -> None:
    learner = module(lr=0.5, minimum_lr=0.1, power=1.0, warmup=4, head_lr=10.0)
    configured: Any = learner.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    rise = [min(1, step / 4) for step in range(10)]
    decay = [1 - step / 10 for step in range(10)]
    # Both end at the minimum, however high they start.
    expected = [[u * (0.1 + 0.4 * d), u * (0.1 + 4.9 * d)] for u, d in zip(rise, decay, strict=True)]
    assert np.array(rates) == pytest.approx(np.array(expected), abs=1e-5)


def test_a_rate_below_the_minimum_is_not_raised() -> None:
    configured: Any = module(lr=0.05, minimum_lr=0.1, head_lr=10.0).configure_optimizers()
    scheduler = configured["lr_scheduler"]["scheduler"]
    for _ in range(9):
        scheduler.optimizer.step()
        scheduler.step()
    encoder, head = scheduler.get_last_lr()
    assert encoder == 0.05
    assert 0.1 < head < 0.5


@pytest.mark.parametrize("frozen", [True, False])
def test_batchnorm_of_the_encoder_stays_as_pretrained_when_asked(*, frozen: bool) -> None:
    learner = module(freeze_batchnorm=frozen)
    learner.train()
    learner.on_train_epoch_start()
    learner.network.encoder(torch.randn(4, 1, 8, 8) + 3)
    moved = bool(learner.network.encoder.running_mean.abs() > 0)
    assert moved is not frozen


class Tiles(Dataset[Batch]):
    """Five random pictures; the last is of another size, and all but the first rows have labels."""

    pixels = 64

    def __init__(self) -> None:
        self.tiles = [Tile("scene", 0, 8 * column, 8 if column < 4 else 6, 8) for column in range(5)]

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, key: tuple[int, int] | int) -> Batch:
        index = key[0] if isinstance(key, tuple) else key
        generator = torch.Generator().manual_seed(index)
        height = self.tiles[index].height if isinstance(key, int) else 8
        mask = torch.randint(0, 2, (height, 8), generator=generator)
        image = mask[None] + torch.randn(1, height, 8, generator=generator)
        mask[0] = 255
        return {"image": image, "mask": mask, "weight": torch.full(mask.shape, 255, dtype=torch.uint8)}


class Noisy(Pixelwise):
    """With a BatchNorm and a dropout in its way."""

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(F.dropout(self.encoder(image), 0.3, self.training))
        return logits


def trained(folder: Path, *, validated: bool, accelerator: str = "cpu") -> nn.Module:
    """Trains for three epochs of two steps, validated after each or never."""
    torch.manual_seed(0)
    tiles: Any = Tiles()
    data = TileDataModule(tiles, tiles if validated else None, batch=2, seed=1, epochs=3)
    module = UncertaintyWeightedSegmenter(
        Noisy(), total_steps=data.total_steps, optimizer=Optimization(lr=0.1)
    )
    settings: Any = {"epochs": 3, "total_steps": data.total_steps, "title": "tiny", "seed": 0}
    fit(module, data, folder=folder, hardware=Hardware(accelerator), **settings)
    return module.network


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is a GPU here")
def test_auto_is_the_cpu_where_only_lightning_knows_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as Apple's GPU, which the rest of ome does not use."""
    monkeypatch.setattr(accelerator_connector, "_select_auto_accelerator", lambda: "mps")
    trained(tmp_path, validated=False, accelerator="auto")


def test_validation_scores_the_network_and_leaves_no_trace_in_it(tmp_path: Path) -> None:
    trained(tmp_path / "blind", validated=False)
    network = trained(tmp_path / "seen", validated=True)
    files = [(tmp_path / name / "network.pt").read_bytes() for name in ("blind", "seen")]
    assert files[0] == files[1]
    rows = [
        (row["step"], row["name"], float(row["value"])) for row in read_csv(tmp_path / "seen/history.csv")
    ]
    scores = {name: value for step, name, value in rows if step == "6"}
    assert [step for step, name, _ in rows if name == "validation/miou"] == ["2", "4", "6"]
    # Counted once more, pixel by pixel.
    network.eval()
    with torch.no_grad():
        logits = [network(Tiles()[index]["image"][None])[0, :, 1:].reshape(2, -1) for index in range(5)]
    labels = torch.cat([Tiles()[index]["mask"][1:].flatten() for index in range(5)])
    predicted, entropy = (
        torch.cat(logits, dim=1).argmax(0),
        F.cross_entropy(torch.cat(logits, dim=1).T, labels),
    )
    ious = [
        ((predicted == c) & (labels == c)).sum() / ((predicted == c) | (labels == c)).sum() for c in (0, 1)
    ]
    assert scores["validation/miou"] == pytest.approx(float(sum(ious)) / 2)
    assert scores["validation/loss"] == pytest.approx(entropy.item(), rel=1e-5)
    assert not any(row["name"].startswith("validation/") for row in read_csv(tmp_path / "blind/history.csv"))
