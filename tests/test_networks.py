"""Backbones, the pixel correlation module and the SEAM network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ome.errors import UserError
from ome.networks import pcm
from ome.networks.backbones import build_backbone
from ome.networks.encoder import resolve_encoder
from ome.networks.features import Backbone, Features
from ome.networks.pcm import clean_cam, pixel_correlation
from ome.networks.seam import SeamNetwork


class TinyBackbone(Backbone):
    """Three convolutions; the low features lie on a finer grid than the final ones."""

    channels = (4, 6, 8)
    output_stride = 4
    frozen = ("stem",)

    def __init__(self) -> None:
        super().__init__()
        self.in_channels = 3
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.middle = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.final = nn.Conv2d(6, 8, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Features:
        low = self.bn(self.stem(image)).relu()
        middle = self.middle(low).relu()
        return Features(low, middle, self.final(middle).relu())


@pytest.fixture
def network() -> SeamNetwork:
    torch.manual_seed(0)
    return SeamNetwork(TinyBackbone(), 3)


def _naive_correlation(cam: NDArray[np.float64], embedding: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixel by pixel, as the formula reads."""
    classes, pixels = cam.shape
    unit = [embedding[:, i] / (np.sqrt((embedding[:, i] ** 2).sum()) + 1e-5) for i in range(pixels)]
    refined = np.zeros_like(cam)
    for j in range(pixels):
        column = [max(0.0, float(unit[i] @ unit[j])) for i in range(pixels)]
        for c in range(classes):
            refined[c, j] = sum(cam[c, i] * column[i] for i in range(pixels)) / (sum(column) + 1e-5)
    return refined


@pytest.mark.parametrize("entries", [None, 1, 5 * 24, 12 * 24, 1000])
def test_pixel_correlation_is_the_formula_for_every_block(entries: int | None) -> None:
    random = np.random.default_rng(0)
    cam, embedding = random.random((2, 3, 4, 3)), random.standard_normal((2, 5, 4, 3))
    refined = pixel_correlation(torch.from_numpy(cam), torch.from_numpy(embedding), entries).numpy()
    for one in range(2):
        expected = _naive_correlation(cam[one].reshape(3, -1), embedding[one].reshape(5, -1))
        np.testing.assert_allclose(refined[one].reshape(3, -1), expected, atol=1e-12)


def test_blocked_gradients_are_the_whole_ones() -> None:
    torch.manual_seed(1)
    cam, weight = torch.rand(1, 2, 5, 4, dtype=torch.float64), torch.randn(1, 2, 5, 4, dtype=torch.float64)
    gradients = []
    for entries in (None, 7 * 20):
        embedding = torch.randn(
            1, 6, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True
        )
        (pixel_correlation(cam, embedding, entries) * weight).sum().backward()
        assert embedding.grad is not None
        gradients.append(embedding.grad)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


def test_blocked_affinity_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    refine = pcm._refine_columns

    def record(cam: Tensor, embedding: Tensor, columns: Tensor) -> Tensor:
        widths.append(columns.shape[2])
        return refine(cam, embedding, columns)

    monkeypatch.setattr(pcm, "_refine_columns", record)
    pixel_correlation(torch.rand(1, 2, 10, 10), torch.rand(1, 4, 10, 10), 3200)
    assert widths == [32, 32, 32, 4]


def test_clean_cam_by_hand() -> None:
    cam = torch.tensor([[[[4.0, -1.0, 1.0]], [[3.0, -2.0, 2.0]], [[-1.0, -1.0, -1.0]]]], requires_grad=True)
    clean = clean_cam(cam)
    assert not clean.requires_grad
    # The first pixel is the peak of both classes, 1 but for the 1e-5 terms, which weigh less on the larger.
    expected = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 0.0, 2 / 3]], [[0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(clean, expected, atol=2e-5, rtol=0)


def test_seam_gradients_reach_what_they_should(network: SeamNetwork) -> None:
    image = torch.rand(2, 3, 21, 30)
    output = network(image)
    assert output.cam.shape == output.refined.shape == (2, 3, 21, 30)
    output.refined.square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert reached == {"f8_3.weight", "f8_4.weight", "f9.weight"}
    network.zero_grad()
    network(image).cam.square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {"fc8.weight", "backbone.stem.weight"} <= reached
    assert not {"f8_3.weight", "f9.weight"} & reached


def test_state_dict_has_no_backbone_prefix_and_round_trips(network: SeamNetwork) -> None:
    state = network.state_dict()
    assert next(iter(state)) == "stem.weight"
    assert not any(name.startswith("backbone.") for name in state)
    other = SeamNetwork(TinyBackbone(), 3)
    outer = nn.ModuleDict({"before": nn.Linear(2, 2), "network": other})
    outer.load_state_dict(
        {**outer.state_dict(), **{f"network.{name}": value for name, value in state.items()}}
    )
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(network.eval()(image).refined, other.eval()(image).refined)
    with pytest.raises(RuntimeError, match="Unexpected"):
        other.load_state_dict({**state, "b9.weight": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing"):
        other.load_state_dict({name: value for name, value in state.items() if name != "stem.bias"})


def test_frozen_parts_do_not_move(network: SeamNetwork) -> None:
    network.freeze().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameter_groups(0.1, 0.01), lr=0.1)
    for _ in range(2):
        output = network(torch.rand(4, 3, 16, 16))
        (output.cam.square().mean() + output.refined.mean()).backward()
        optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved >= {"middle.weight", "middle.bias", "final.weight", "fc8.weight", "f9.weight"}
    assert not any(name.startswith(("stem", "bn")) for name in moved)


def test_unfrozen_batchnorm_learns(network: SeamNetwork) -> None:
    before = network.backbone.bn.running_mean.clone()
    network.train()(torch.rand(4, 3, 16, 16))
    assert not torch.equal(network.backbone.bn.running_mean, before)


def test_parameter_groups(network: SeamNetwork) -> None:
    groups = network.freeze().parameter_groups(0.01, 5e-4)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    actual = [
        ([names[id(p)] for p in group["params"]], pytest.approx(group["lr"]), group["weight_decay"])
        for group in groups
    ]
    assert actual == [
        (["backbone.middle.weight", "backbone.final.weight"], 0.01, 5e-4),
        (["backbone.middle.bias"], 0.02, 0.0),
        (["fc8.weight", "f8_3.weight", "f8_4.weight", "f9.weight"], 0.1, 5e-4),
        ([], 0.2, 0.0),
    ]


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 8), ("mobilenet_v2", 16), ("resnet18", 32)])
def test_encoder_reaches_its_stride(name: str, stride: int) -> None:
    backbone = build_backbone(name, None, stride).eval()
    with torch.inference_mode():
        features = backbone(torch.rand(1, 3, 70, 50))
    assert tuple(feature.shape[1] for feature in features) == backbone.channels
    assert features.final.shape[2:] == (-(-70 // stride), -(-50 // stride))


def test_timm_encoder_with_four_bands_serves_seam() -> None:
    backbone = build_backbone("resnet10t", None, 16, in_channels=4)
    with torch.inference_mode():
        output = SeamNetwork(backbone, 2).eval()(torch.rand(1, 4, 40, 33))
    assert output.refined.shape == (1, 2, 40, 33)


def test_encoder_freezes_stem_and_first_stage() -> None:
    frozen = build_backbone("resnet18").frozen
    assert {name.split(".")[1] for name in frozen} == {"conv1", "bn1", "layer1"}


def test_encoder_probe_leaves_statistics_and_gradients_alone() -> None:
    backbone = build_backbone("resnet18")
    assert backbone.training
    assert backbone.encoder.training
    assert all(
        not buffer for name, buffer in backbone.named_buffers() if name.endswith("num_batches_tracked")
    )
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("resnet5O", 8, "did you mean .*resnet50"),
        ("vgg11", 8, "cannot be dilated to output stride 8"),
        ("resnet18", 4, "must be 8, 16 or 32"),
        ("vit_tiny_patch16_224", 32, "patches of 16 pixels"),
        ("test_maxvit", 8, "images of any size.* such as resnet50"),
        ("test_maxvit", 32, "images of any size"),
        ("beit_base_patch16_224", 8, "no pyramid of feature maps.* such as resnet50"),
        ("beit_base_patch16_224", 32, "no pyramid of feature maps.* such as resnet50"),
        ("resnet38d", 16, "output_stride=16: resnet38d has 8"),
    ],
)
def test_unsuitable_backbones_are_refused(name: str, stride: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        build_backbone(name, None, stride)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("dinov2_vits14", "vit_small_patch14_dinov2"),
        ("facebook/dinov3-vits16", "vit_small_patch16_dinov3"),
        ("microsoft/swin-tiny-patch4", "swin_tiny_patch4_window7_224"),
        ("prithvi", "resnet50, convnext_tiny"),
    ],
)
def test_names_of_other_libraries_are_answered_with_one_that_works(name: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        resolve_encoder(name)


def test_resnet38d_names_the_file_option() -> None:
    with torch.device("meta"), pytest.raises(UserError, match=r"such as /path/file\.pth"):
        build_backbone("resnet38d", "imagenet")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.pth"):
        build_backbone("resnet18", str(tmp_path / "nothing.pth"))
