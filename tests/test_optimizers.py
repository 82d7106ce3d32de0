"""Optimisers and schedules against plain torch and hand-worked examples."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from ome.config.objects import optimization
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.training.optimizers import Optimization, OptimizerName, build_optimizer, layer_scales
from ome.training.schedule import rate_factor
from ome.training.seam_losses import seam_loss
from tests.conftest import compose_config
from tests.test_kernels import BACKBONES


class Blocks(nn.Module):
    """Defined in another order than used, as MiT's embeddings and blocks are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(2)])
        self.stem = nn.Conv2d(4, 4, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = self.stem(image)
        for block in self.block:
            image = block(image)
        return self.norm(image)


def test_a_layer_counts_from_where_the_image_leaves() -> None:
    network = Blocks()
    scales = layer_scales(network, 0.5)
    by_name = {name: scales[id(parameter)] for name, parameter in network.named_parameters()}
    # stem, block.0, block.1, norm: four layers
    assert by_name["stem.weight"] == 0.5**4
    assert by_name["block.0.0.weight"] == by_name["block.0.1.bias"] == 0.5**3
    assert by_name["block.1.0.weight"] == 0.5**2
    assert by_name["norm.weight"] == 0.5
    assert by_name["unused.weight"] == 1
    assert network.training
    assert int(network.norm.num_batches_tracked) == 0, "statistics are left as they are"


def configured(settings: Optimization, network: SeamNetwork, steps: int) -> Any:  # noqa: ANN401
    groups = network.parameter_groups(settings.lr, settings.weight_decay)
    return settings.configure(network, network.backbone, groups, steps)


@pytest.mark.parametrize("name", ["mit_b0", "mobilenet_v2", "resnet18"])
def test_rates_fall_towards_the_image_in_every_backbone(name: str) -> None:
    torch.manual_seed(0)
    network = SeamNetwork(build_backbone(name, None, 16), 3)
    settings = Optimization(lr=1.0, layer_decay=0.8, name="adamw", norm_decay=False)
    optimizer = configured(settings, network, 10)["optimizer"]
    assert isinstance(optimizer, torch.optim.AdamW)
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(network.parameters()))
    names = [group["name"] for group in optimizer.param_groups]
    assert len(set(names)) == len(names)
    weights = [
        rates[id(p)] for n, p in network.named_parameters() if n.startswith("backbone") and "weight" in n
    ]
    assert 0 < min(weights) < 0.8**6
    assert max(weights) == pytest.approx(0.8)
    assert rates[id(network.fc8.weight)] == 10
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)]
    assert norms
    assert {decays[id(norm.weight)] for norm in norms} == {0}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("poly", lambda done: 0.1 + 0.9 * (1 - done) ** 0.9),
        ("cosine", lambda done: 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2),
        ("constant", lambda _: 1.0),
    ],
)
def test_schedules_by_hand(schedule: str, expected: object) -> None:
    for step, warmup in product((0, 2, 4, 9, 30), (0, 4)):
        done = min(step, 9) / 10
        factor = rate_factor(schedule, step, total_steps=10, power=0.9, floor=0.1, warmup=warmup)  # type: ignore[arg-type]
        rise = 1 if step >= warmup else 1e-6 + (1 - 1e-6) * step / warmup
        assert factor == pytest.approx(expected(done) * rise)  # type: ignore[operator]


def test_a_classifier_learns_with_either() -> None:
    for settings in (Optimization(), Optimization(name="adamw", lr=0.01, schedule="cosine", warmup=6)):
        torch.manual_seed(0)
        network = SeamNetwork(build_backbone("resnet18", None, 16), 2, pcm=False)
        network.dropout.p = 0.0
        plain = [p.detach().clone() for p in network.parameters()]
        both = configured(settings, network, 24)
        optimizer, schedule = both["optimizer"], both["lr_scheduler"]["scheduler"]
        images, tags = torch.rand(4, 3, 32, 32), torch.tensor([[0.0, 1], [1, 0], [1, 1], [0, 1]])
        losses = []
        for _ in range(24):
            optimizer.zero_grad()
            scores = network(images).cam.mean(dim=(2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(scores, tags)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss))
        assert losses[-1] < 0.8 * losses[0]
        assert any(not torch.equal(a, b) for a, b in zip(plain, network.parameters(), strict=True))


QUICK = (("encoder", "seam"), ("mobilenet_v2", "cam"), ("mit_b0", "cam"))
"""One that explodes at a rate that is too high, and the default's kinds; `make test-all` runs all."""


@pytest.mark.parametrize(
    ("backbone", "classifier"),
    [
        pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.slow])
        for pair in product(BACKBONES, ("cam", "seam"))
    ],
)
def test_the_default_recipe_trains_every_backbone(backbone: str, classifier: str) -> None:
    """From random weights, which is where rates that are too high show first."""
    named = ["backbone.name=tu-tf_efficientnet_lite2"] if backbone == "encoder" else []
    config = compose_config(["dataset=potsdam", f"backbone={backbone}", f"classifier={classifier}", *named])
    torch.manual_seed(0)
    network = SeamNetwork(
        build_backbone(config.backbone.name, None, config.backbone.output_stride),
        2,
        pcm=config.classifier.pcm,
    )
    steps = 8
    both = configured(optimization(config.stage.cam, steps), network, steps)
    optimizer, schedule = both["optimizer"], both["lr_scheduler"]["scheduler"]
    tags = torch.tensor([[0.0, 1], [1, 0], [1, 1], [0, 1]])
    images = torch.randn(4, 3, 64, 64) + 2 * (tags[:, :1, None, None] - tags[:, 1:, None, None])
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        second = None
        if classifier == "seam":
            second = network(nn.functional.interpolate(images, scale_factor=0.5))
        weights = {key: config.classifier[key] for key in ("er_weight", "ecr_weight", "min_pool_weight")}
        loss = seam_loss(network(images), second, tags, **weights)
        loss.total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.stage.cam.clip)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.multilabel))
    assert all(math.isfinite(loss) for loss in losses)
    assert max(losses) < 3
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_fused_optimiser_takes_the_steps_of_the_plain_one(name: OptimizerName) -> None:
    generator, groups = torch.Generator().manual_seed(0), []
    for _ in range(2):
        tensors = [torch.linspace(-1, 1, 12).reshape(3, 4), torch.full((5,), 0.5)]
        groups.append([{"params": [nn.Parameter(t)], "lr": 0.1, "weight_decay": 0.01} for t in tensors])
    fused = build_optimizer(name, groups[0], 0.1, 0.9)
    options = {"foreach": False, "fused": False}
    plain = (
        torch.optim.SGD(groups[1], lr=0.1, momentum=0.9, **options)
        if name == "sgd"
        else torch.optim.AdamW(groups[1], lr=0.1, **options)
    )
    assert fused.defaults["fused"]
    for _ in range(6):
        for ours, theirs in zip(fused.param_groups, plain.param_groups, strict=True):
            gradient = torch.randn(ours["params"][0].shape, generator=generator)
            ours["params"][0].grad, theirs["params"][0].grad = gradient.clone(), gradient
        fused.step()
        plain.step()
    for ours, theirs in zip(fused.param_groups, plain.param_groups, strict=True):
        torch.testing.assert_close(ours["params"][0], theirs["params"][0], rtol=1e-6, atol=1e-7)
