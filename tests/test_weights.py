"""Weights from files of several kinds, and one clear line for every file that does not fit."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants
from torch import Tensor, nn

from ome.errors import UserError
from ome.files import read_json
from ome.networks.backbones import build_backbone
from ome.networks.hub import published_weights
from ome.networks.resnet38d import ResNet38d
from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import build_segmenter
from ome.networks.statistics import say_assumed_statistics
from ome.networks.weights import load_classifier, load_encoder, load_weights
from ome.pipeline.layout import NETWORK
from ome.training.checkpoints import load_network

convert_mxnet = pytest.importorskip("convert_mxnet")
read_params, resnet38d_name = convert_mxnet.read_params, convert_mxnet.resnet38d_name


def _network(bands: int = 3, width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(bands, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


@pytest.fixture
def donor() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: tensor.clone() for name, tensor in _network().state_dict().items()}


def _loads(path: Path, donor: dict[str, Tensor]) -> None:
    network = _network()
    report = load_weights(network, path)
    assert report.missing == ()
    assert all(torch.equal(value, donor[name]) for name, value in network.state_dict().items())


def test_plain_wrapped_and_safetensors_files_load(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.pth"
    torch.save(donor, path)
    _loads(path, donor)
    prefixed = {f"module.{name}": value for name, value in donor.items()}
    torch.save({"state_dict": prefixed, "epoch": 3}, path)
    _loads(path, donor)
    torch.save({"state_dict": {f"network.backbone.{name}": value for name, value in donor.items()}}, path)
    _loads(path, donor)
    safetensors.torch.save_file(donor, tmp_path / "weights.safetensors")
    _loads(tmp_path / "weights.safetensors", donor)


@pytest.mark.parametrize(
    "prefix", ["features.", "ema_model.module.", "visual.trunk.", "image_encoder.model."]
)
def test_wrappers_of_any_name_are_taken_off(tmp_path: Path, donor: dict[str, Tensor], prefix: str) -> None:
    path, others = tmp_path / "weights.pth", {"head.weight": torch.ones(2, 2)}
    torch.save({prefix + name: value for name, value in donor.items()} | others, path)
    _loads(path, donor)
    torch.save({prefix.partition(".")[0]: donor, "optimizer": {"state": {}, "lr": 0.1}}, path)
    _loads(path, donor)


def test_of_two_networks_in_wrappers_the_first_is_used_and_said(
    tmp_path: Path, donor: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    second = {f"second.{name}": value + 1 for name, value in donor.items()}
    torch.save({f"first.{name}": value for name, value in donor.items()} | second, tmp_path / "weights.pth")
    _loads(tmp_path / "weights.pth", donor)
    assert "first is used, not second" in caplog.text


def test_classifier_is_left_out_and_reported(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    torch.save(
        {**donor, "fc.weight": torch.zeros(10, 2), "fc.bias": torch.zeros(10)}, tmp_path / "weights.pth"
    )
    assert load_weights(_network(), tmp_path / "weights.pth").unexpected == ("fc.weight", "fc.bias")


def test_counter_of_old_checkpoints_may_lack(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    del donor["1.num_batches_tracked"]
    torch.save(donor, tmp_path / "weights.pth")
    assert load_weights(_network(), tmp_path / "weights.pth").missing == ()


@pytest.mark.parametrize(("bands", "others"), [(4, 3), (4, 6), (1, 4)])
def test_weights_for_another_number_of_bands_are_refused(tmp_path: Path, bands: int, others: int) -> None:
    torch.save(_network(bands).state_dict(), tmp_path / "weights.pth")
    message = f"is for images of {bands} bands, but the dataset has {others} .dataset.channels.:"
    with pytest.raises(UserError, match=message):
        load_weights(_network(others), tmp_path / "weights.pth")


def test_a_trained_network_of_other_bands_or_classes_is_refused(tmp_path: Path) -> None:
    torch.save(_network(4).state_dict(), tmp_path / NETWORK)
    load_network(_network(4), tmp_path)
    with pytest.raises(
        UserError, match=r"trained on images of 4 bands, and now they have 3 \(dataset.channels\)"
    ):
        load_network(_network(3), tmp_path)
    with pytest.raises(UserError, match=r"network.pt is of another network, or of other classes: run"):
        load_network(_network(4, width=5), tmp_path)


def test_other_numbers_of_bands(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    torch.save(donor, tmp_path / "weights.pth")
    grey = torch.rand(1, 1, 8, 8)
    expected = nn.functional.conv2d(grey.expand(1, 3, 8, 8), donor["0.weight"])
    for bands in (1, 6):
        network = _network(bands)
        load_weights(network, tmp_path / "weights.pth")
        weight = network.state_dict()["0.weight"]
        torch.testing.assert_close(nn.functional.conv2d(grey.expand(1, bands, 8, 8), weight), expected)
    network = _network(4)
    load_weights(network, tmp_path / "weights.pth")
    expected_bands = donor["0.weight"][:, [0, 1, 2, 0]] * 0.75
    torch.testing.assert_close(network.state_dict()["0.weight"], expected_bands)


def test_unfit_files_are_refused_in_one_line(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.pth"

    def refused(message: str, file: Path = path) -> None:
        network = _network()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(UserError, match=message) as raised:
            load_weights(network, file)
        assert "\n" not in str(raised.value)
        assert file.name in str(raised.value)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    torch.save({f"layer9_{name}": value for name, value in donor.items()}, path)
    refused(
        r"lacks 8 of the network's 8 tensors .*0\.weight, .*layer9_0\.weight.*another network.*give timm's"
    )
    torch.save(_network(width=5).state_dict(), path)
    refused(r"7 tensors have another shape .*0\.weight \[5, 3, 3, 3\] instead of \[4, 3, 3, 3\]")
    path.write_bytes(b"<html>404</html>")
    refused("not a checkpoint")
    torch.save(donor, path)
    path.write_bytes(path.read_bytes()[:-600])
    refused("truncated")
    torch.save([1, 2], path)
    refused("no named tensors")
    torch.save({"model": _network()}, path)
    refused("state dict alone")
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(b"\x01\x02")
    refused("truncated", broken)
    refused("weights file does not exist:", tmp_path / "absent.pth")
    refused("weights file does not exist:", tmp_path)


CLASSES = ("impervious_surface", "building", "low_vegetation", "tree", "car")


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A state dict with the published names and shapes; a tensor is one number, so that files are small."""
    shapes: dict[str, list[int]] = read_json(Path(__file__).parent / "golden/seam_state_dict_5c.json")
    numbered = enumerate(shapes.items(), start=1)
    return {name: torch.tensor(float(number)).expand(shape) for number, (name, shape) in numbered}


def _empty_classifier(classes: int = 5) -> SeamNetwork:
    with torch.device("meta"):
        network = SeamNetwork(ResNet38d(), classes)
    return network.to_empty(device="cpu")


@pytest.mark.parametrize("prefix", ["", "module.", "ema_model."])
def test_a_published_classifier_loads_whole(
    tmp_path: Path, published: dict[str, Tensor], prefix: str
) -> None:
    torch.save({prefix + name: value for name, value in published.items()}, tmp_path / "resnet38_SEAM.pth")
    network = _empty_classifier()
    load_classifier(network, tmp_path / "resnet38_SEAM.pth", CLASSES)
    state = network.state_dict()
    assert state.keys() == published.keys()
    # First and last value of each: copying 105 million numbers twice more would take seconds.
    for name, value in state.items():
        assert value.flatten()[[0, -1]].tolist() == published[name].flatten()[[0, -1]].tolist(), name


def test_as_backbone_weights_a_published_classifier_gives_the_backbone_alone(
    tmp_path: Path, published: dict[str, Tensor]
) -> None:
    torch.save(published, tmp_path / "resnet38_SEAM.pth")
    with torch.device("meta"):
        backbone = ResNet38d()
    report = load_weights(backbone.to_empty(device="cpu"), tmp_path / "resnet38_SEAM.pth")
    assert report.missing == ()
    assert set(report.unexpected) == {"fc8.weight", "f8_3.weight", "f8_4.weight", "f9.weight"}


def test_a_classifier_that_does_not_fit_is_one_line(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = tmp_path / "resnet38_SEAM.pth"
    network = SeamNetwork(build_backbone("resnet18"), 5)

    def refused(message: str, state: dict[str, Tensor], names: tuple[str, ...] = CLASSES) -> None:
        torch.save(state, path)
        with pytest.raises(UserError, match=message) as raised:
            load_classifier(network, path, names)
        assert "\n" not in str(raised.value)

    refused(r"has 5 classes and the dataset has 2 \(a, b\)", published, ("a", "b"))
    refused("3 tensors have another shape", published)
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    refused(
        "missing keys f9.weight, unexpected keys none", {n: v for n, v in tensors.items() if n != "f9.weight"}
    )
    four = tensors | {"encoder.conv1.weight": torch.zeros(64, 4, 7, 7)}
    refused(r"is for images of 4 bands, but the dataset has 3 \(dataset.channels\): a whole classifier", four)
    refused("missing keys none, unexpected keys extra.weight", tensors | {"extra.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"weights file does not exist:.*stage\.cam\.checkpoint="):
        load_classifier(network, tmp_path / "absent.pth", CLASSES)


def test_names_of_smp_and_timm_load_into_encoders(tmp_path: Path) -> None:
    """A whole segmenter gives its encoder; a timm model loads without the library's prefix."""
    torch.manual_seed(0)
    segmenter = build_segmenter("unet", "resnet18", 2)
    torch.save({"state_dict": segmenter.network.state_dict()}, tmp_path / "smp.pth")
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "timm.pth")
    for file, name in (("smp.pth", "resnet18"), ("timm.pth", "tu-resnet18"), ("timm.pth", "resnet18")):
        saved = torch.load(tmp_path / file, weights_only=True)
        saved = saved.get("state_dict", saved)
        encoder = build_backbone(name, str(tmp_path / file)).encoder
        loaded = {key.removeprefix("model."): value for key, value in encoder.state_dict().items()}
        assert len(loaded) > 100
        for key, value in loaded.items():
            assert torch.equal(value, saved.get(key, saved.get(f"encoder.{key}"))), key


def test_torchvision_names_load_into_smp_and_timm_encoders(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = torchvision.models.resnet18().state_dict()
    torch.save(published, tmp_path / "resnet18.pth")
    for name in ("resnet18", "tu-resnet18"):
        encoder = build_backbone(name, str(tmp_path / "resnet18.pth")).encoder
        weight = next(
            value for key, value in encoder.state_dict().items() if key.endswith("layer4.1.conv2.weight")
        )
        assert torch.equal(weight, published["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("vit_base_patch16_224", r"w.pth is taken .* mean \(0.5, .*: .*vit_base_patch16_224.mae"),
        ("vit_base_patch16_224.mae", ""),
        ("vit_tiny_patch16_224", ""),
        ("vit_small_patch14_dinov2", ""),
        ("resnet50", ""),
    ],
)
def test_a_file_for_a_name_with_weights_of_two_kinds_is_said(
    caplog: pytest.LogCaptureFixture, name: str, line: str
) -> None:
    """A file of MAE without its tag would be taken for one of mean 0.5, timm's default of the name."""
    say_assumed_statistics(name, "w.pth")
    assert re.search(line, caplog.text) if line else not caplog.text


def test_hub_mistakes_and_failures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encoder = build_backbone("resnet18").encoder
    with pytest.raises(UserError, match="there are: imagenet, ssl, swsl"):
        load_encoder(encoder, "resnet18", "imagnet")
    assert published_weights("resnet50d")[0] == "imagenet"
    with pytest.raises(UserError, match="a1_in1k"):
        load_encoder(encoder, "tu-resnet18", "a9_in1k")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("resnet18", "tu-resnet18"):
        with pytest.raises(UserError, match=r"cannot download .* such as /path/file\.pth") as raised:
            load_encoder(encoder, name, "imagenet")
        assert "\n" not in str(raised.value)


def _mxnet_array(array: np.ndarray, version: int) -> bytes:
    wide = f"<I{array.ndim}q"
    header = {
        0: struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape),
        1: struct.pack("<I", 0xF993FAC8) + struct.pack(wide, array.ndim, *array.shape),
        2: struct.pack("<Ii", 0xF993FAC9, 0) + struct.pack(wide, array.ndim, *array.shape),
    }[version]
    kind = {"float32": 0, "float64": 1, "float16": 2}[array.dtype.name]
    return header + struct.pack("<3i", 1, 0, kind) + array.tobytes()


def _mxnet_file(arrays: dict[str, np.ndarray], version: int) -> bytes:
    content = struct.pack("<3Q", 0x112, 0, len(arrays))
    content += b"".join(_mxnet_array(array, version) for array in arrays.values())
    content += struct.pack("<Q", len(arrays))
    return content + b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_mxnet_arrays_are_read(tmp_path: Path, version: int) -> None:
    arrays = {
        "arg:conv1a_weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "aux:bn7_moving_var": np.array([0.5, 2.0], np.float16),
    }
    path = tmp_path / "model.params"
    path.write_bytes(_mxnet_file(arrays, version))
    read = read_params(path)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == torch.from_numpy(array).dtype
        np.testing.assert_array_equal(read[name].numpy(), array)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="truncated"):
        read_params(path)
    path.write_bytes(b"PK" * 40)
    with pytest.raises(UserError, match="not an MXNet"):
        read_params(path)


def test_mxnet_files_load_into_the_network(tmp_path: Path) -> None:
    """The ends of ResNet38d, small, through the same door as every other file."""
    network = nn.Module()
    network.conv1a = nn.Conv2d(3, 4, 3, bias=False)
    network.bn7 = nn.BatchNorm2d(4)
    random = np.random.default_rng(0)
    arrays = {"arg:conv1a_weight": random.random((4, 3, 3, 3)).astype(np.float32)}
    ends = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}
    for end in ends:
        arrays[f"{'aux' if 'moving' in end else 'arg'}:bn7_{end}"] = random.random(4).astype(np.float32)
    arrays["arg:linear1000_weight"] = np.zeros((2, 4), np.float32)
    source, target = tmp_path / "a1.params", tmp_path / "a1.pth"
    source.write_bytes(_mxnet_file(arrays, 2))
    with pytest.raises(UserError, match=rf"python scripts/convert_mxnet\.py {source} {target}"):
        load_weights(network, source)
    assert convert_mxnet.main([str(source), str(target)]) == 0
    report = load_weights(network, target)
    assert report.unexpected == ("arg:linear1000_weight",)
    np.testing.assert_array_equal(network.conv1a.weight.detach(), arrays["arg:conv1a_weight"])
    for end, name in ends.items():
        kind = "aux" if "moving" in end else "arg"
        np.testing.assert_array_equal(getattr(network.bn7, name).detach(), arrays[f"{kind}:bn7_{end}"])


def test_mxnet_names_cover_resnet38d() -> None:
    """Every tensor has exactly one published name, built here from the published naming scheme."""
    with torch.device("meta"):
        names = [name for name in ResNet38d().state_dict() if not name.endswith("num_batches_tracked")]
    ends = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    published = []
    for name in names:
        parts = name.split(".")
        if parts[0] in {"conv1a", "bn7"}:
            end = "weight" if parts[0] == "conv1a" else ends[parts[1]]
            published.append(f"arg:{parts[0]}_{end}")
            continue
        stage, _, index = parts[0][1:].partition("_")
        layer, branch = parts[1].split("_")
        unit = f"{stage}b{index}" if index else f"{stage}a"
        published.append(
            f"arg:res{unit}_{branch}_weight" if layer == "conv" else f"aux:bn{unit}_{branch}_{ends[parts[2]]}"
        )
    assert [resnet38d_name(name) for name in published] == names
    assert resnet38d_name("arg:linear1000_weight") is None
