"""Families of timm encoders: as classifier and segmenter, and their weights under the names of downloads."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ome.config.checks import check_settings
from ome.data.transforms import IMAGE_MEAN, IMAGE_STD
from ome.errors import UserError
from ome.networks.affinity import AffinityNetwork
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import build_segmenter
from ome.networks.statistics import check_convertible
from ome.networks.transformers import patch_of
from ome.training.optimizers import layer_scales
from tests.conftest import compose_config

FAMILIES = {"test_vit": (16, "dpt"), "test_vit4": (16, "dpt"), "test_convnext": (16, "fpn")}


def unlearnt(network: nn.Module) -> list[str]:
    return [name for name, parameter in network.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_classifies_and_segments_images_of_any_size(name: str) -> None:
    stride, segmenter = FAMILIES[name]
    image = torch.rand(2, 4, 45, 70)
    backbone = build_backbone(name, None, stride, 4)
    features = backbone(image)
    assert features.final.shape == (2, backbone.channels[2], 3, 5)
    (features.final.sum() + features.low.sum()).backward()
    network = build_segmenter(segmenter, name, 5, in_channels=4)
    logits = network(image)
    assert logits.shape == (2, 5, 45, 70)
    logits.square().sum().backward()
    assert unlearnt(backbone) == unlearnt(network) == []


IDLE = {
    "efficientnet-b0": ["_conv_head.weight", "_bn1.weight", "_bn1.bias"],
    "timm-efficientnet-b0": ["conv_head.weight", "bn2.weight", "bn2.bias"],
    "hrnet_w18_small": [],
    "test_convnext": [],
}
"""Encoders, and their parameters on which no map depends."""


@pytest.mark.parametrize("name", IDLE)
def test_what_gets_no_gradient_asks_for_none(name: str) -> None:
    """Distributed training waits for the gradient of every parameter that asks for one."""
    backbone = build_backbone(name, None, 32 if name == "hrnet_w18_small" else 16)
    segmenter, affinity = build_segmenter("fpn", name, 3), AffinityNetwork(backbone)
    for network in (segmenter, affinity, SeamNetwork(backbone, 3), SeamNetwork(backbone, 3, pcm=False)):
        network.zero_grad()
        total = sum(output.sum() for output in tree_leaves(network(torch.rand(2, 3, 64, 64))))
        assert isinstance(total, Tensor)
        total.backward()
        asking = {parameter for parameter, tensor in network.named_parameters() if tensor.requires_grad}
        assert asking.isdisjoint(unlearnt(network))
    # They keep their names, which published weights have too.
    assert [parameter.partition("encoder.")[2] for parameter in unlearnt(segmenter)] == IDLE[name]


def tiny(name: str) -> nn.Module:
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every transformer of timm small."""
    small = partial(timm.create_model, embed_dim=48, depth=6, num_heads=3)
    monkeypatch.setattr(timm, "create_model", small)


@pytest.mark.usefixtures("_small")
def test_a_patch_of_fourteen_pixels_stands_for_sixteen() -> None:
    image = torch.rand(1, 3, 64, 90)
    assert build_backbone("vit_small_patch14_dinov2", None, 16)(image).final.shape == (1, 48, 4, 6)
    segmenter = build_segmenter("dpt", "vit_small_patch14_dinov2", 2)
    assert segmenter(image).shape == (1, 2, 64, 90)
    assert min(layer_scales(segmenter.encoder, 0.5).values()) < 0.5**6  # as segmenter.recipe.layer_decay asks


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("wrapper", ["", "teacher.backbone."])
@pytest.mark.parametrize(
    ("name", "prefix_tokens"),
    [
        ("vit_small_patch14_dinov2", 1),
        ("vit_small_patch14_reg4_dinov2", 0),  # its five other tokens have no position
        ("deit_tiny_distilled_patch16_224", 2),
    ],
)
def test_weights_of_another_image_size_are_interpolated_as_timm_does(
    tmp_path: Path, name: str, prefix_tokens: int, wrapper: str
) -> None:
    donor = timm.create_model(name, img_size=112, num_classes=0)
    for parameter in donor.parameters():
        nn.init.normal_(parameter, std=0.2)
    side = 112 // patch_of(donor)
    assert donor.pos_embed.shape == (1, side**2 + prefix_tokens, 48)
    torch.save(donor.state_dict(), tmp_path / "timm.pth")
    torch.save({wrapper + key: value for key, value in donor.state_dict().items()}, tmp_path / "file.pth")
    overlay = {"file": str(tmp_path / "timm.pth")}
    expected = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    assert expected.pos_embed.shape != donor.pos_embed.shape
    source = str(tmp_path / "file.pth")
    classifier = build_backbone(name, source, 16).encoder.state_dict()
    segmenter = build_segmenter("dpt", name, 2, source).encoder.get_submodule("model").state_dict()
    assert classifier.keys() - segmenter.keys() <= {"norm.weight", "norm.bias"}, "not used by the segmenter"
    for key, value in (*classifier.items(), *segmenter.items()):
        assert torch.equal(value, expected.state_dict()[key]), key


def as_of_the_authors(tensors: dict[str, Tensor], token: str) -> dict[str, Tensor]:
    """Weights of timm's network under the names that DINOv2 and DINOv3 are published with."""
    published = dict(tensors)
    published[token] = published.pop("reg_token")
    published["mask_token"] = torch.zeros(1, published["cls_token"].shape[2])
    if "pos_embed" in published:  # the class token has a position of its own there
        place = torch.full_like(published["cls_token"], 0.5)
        published["cls_token"] = published["cls_token"] - place
        published["pos_embed"] = torch.cat([place, published["pos_embed"]], dim=1)
    else:
        published["rope_embed.periods"] = torch.ones(8)
    return published


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("wrapper", ["", "teacher.backbone."])
@pytest.mark.parametrize(
    ("name", "token"),
    [("vit_small_patch14_reg4_dinov2", "register_tokens"), ("vit_small_patch16_dinov3", "storage_tokens")],
)
def test_files_of_the_authors_are_read_as_timm_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, token: str, wrapper: str
) -> None:
    donor = timm.create_model(name, num_classes=0)
    for parameter in donor.parameters():
        nn.init.normal_(parameter, std=0.2)
    published = as_of_the_authors(donor.state_dict(), token)
    torch.save({wrapper + key: value for key, value in published.items()}, tmp_path / "file.pth")
    source = str(tmp_path / "file.pth")
    classifier = build_backbone(name, source, 16).encoder.state_dict()
    segmenter = build_segmenter("dpt", name, 2, source).encoder.get_submodule("model").state_dict()
    for key, value in (*classifier.items(), *segmenter.items()):
        assert torch.allclose(value, donor.state_dict()[key], atol=1e-6), key
    assert not capsys.readouterr().out


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("shape", [(1, 7 * 9 + 1, 48), (1, 65, 64), (1, 0, 48)])
def test_a_position_embedding_that_cannot_be_interpolated_is_one_line(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    donor = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    torch.save(donor | {"pos_embed": torch.zeros(shape)}, tmp_path / "file.pth")
    message = rf"pos_embed \[{', '.join(map(str, shape))}\] instead of .*; give the weights of this network"
    with pytest.raises(UserError, match=message):
        build_backbone("vit_small_patch14_dinov2", str(tmp_path / "file.pth"), 16)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: build_backbone("test_vit", None, 8), "patches of 16 pixels.*backbone.output_stride=16"),
        (lambda: build_segmenter("fpn", "test_vit", 2), "type segmenter=dpt"),
        (lambda: build_segmenter("dpt", "resnet18", 2), "'dpt' takes plain transformers.*segmenter=upernet"),
        (lambda: build_segmenter("fpn", "beit_base_patch16_224", 2), "use another, such as resnet50"),
    ],
)
def test_what_cannot_work_says_so_and_names_what_can(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize(
    ("name", "fits"),
    [("resnetv2_50", False), ("resnetv2_50x1_bit", False), ("naflexvit_base_patch16_gap", False)]
    + [(name, True) for name in ("test_vit", "mixer_s32_224", "xception41", "tresnet_m", "resnet18")],
)
def test_weights_with_other_statistics_are_taken_over_by_the_first_layer_or_refused(
    name: str, fits: bool
) -> None:
    """Of a first layer without bias and BatchNorm, or with standardised weights, the offset would be lost."""
    with torch.device("meta"):
        network = timm.create_model(name)
    with nullcontext() if fits else pytest.raises(UserError, match=r"cannot be adapted: .* such as resnet50"):
        check_convertible(network, name, "imagenet")


def test_it_is_said_before_the_first_stage_and_before_a_download() -> None:
    chosen = ["backbone=encoder", "backbone.name=resnetv2_50.a1h_in1k", "backbone.weights=imagenet"]
    with pytest.raises(UserError, match="cannot be adapted"):
        check_settings(compose_config([*chosen, "backbone.output_stride=32"]), ["cam"])


def renormalised(image: Tensor) -> Tensor:
    """From ImageNet's mean and deviation to 0.5, which all of timm's test networks have."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    return (image * std + mean - 0.5) / 0.5


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "bare": lambda tensors: tensors,
    "model": lambda tensors: {"model": tensors, "epoch": 3},
    "lightning": lambda tensors: {"state_dict": {f"model.backbone.{k}": v for k, v in tensors.items()}},
    "moco": lambda tensors: {"state_dict": {f"module.encoder_q.{k}": v for k, v in tensors.items()}},
    "byol": lambda tensors: {f"online_encoder.net.{k}": v for k, v in tensors.items()},
    "dino": lambda tensors: {
        "teacher": {f"backbone.{k}": v for k, v in tensors.items()},
        "student": {f"module.backbone.{k}": torch.zeros_like(v) for k, v in tensors.items()},
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_downloaded_files_give_equal_features(
    name: str, wrapping: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    donor = tiny(name)
    torch.save(WRAPPINGS[wrapping](donor.state_dict()), tmp_path / "file.pth")
    stride = 16 if name == "test_vit" else 32
    backbone = build_backbone(name, str(tmp_path / "file.pth"), stride).eval()
    side = 160 if name == "test_vit" else 64
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        expected = donor.forward_intermediates(  # type: ignore[operator]
            renormalised(image), intermediates_only=True, norm=name == "test_vit"
        )[-1]
        torch.testing.assert_close(backbone(image).final, expected, rtol=1e-3, atol=1e-3)
    assert ("using teacher, not student" in " ".join(capsys.readouterr().out.split())) == (wrapping == "dino")


def test_features_only_files_load_too(tmp_path: Path) -> None:
    donor = tiny("test_convnext")
    listed = timm.create_model("test_convnext", pretrained=False, features_only=True)
    names = list(listed.state_dict())
    assert "stem_0.weight" in names
    values = [v for k, v in donor.state_dict().items() if not k.startswith("head")]
    torch.save(dict(zip(names, values, strict=True)), tmp_path / "file.pth")
    torch.save(donor.state_dict(), tmp_path / "whole.pth")
    image = torch.randn(1, 3, 64, 64)
    one, other = (
        build_backbone("test_convnext", str(tmp_path / f), 32).eval() for f in ("file.pth", "whole.pth")
    )
    assert torch.equal(one(image).final, other(image).final)


def test_missing_and_unexpected_keys_are_named(tmp_path: Path) -> None:
    tensors = tiny("test_convnext").state_dict()
    tensors["stages.0.blocks.0.scale"] = tensors.pop("stages.0.blocks.0.gamma")
    torch.save(tensors, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"missing keys .*gamma, unexpected keys .*scale"):
        build_backbone("test_convnext", str(tmp_path / "file.pth"), 32)
