"""Gradients in the precision and layout that `auto` may choose, layer by layer against float32."""

import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from typing import get_args

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.func import functional_call

from ome.config.schema.general import Precision
from ome.networks.backbones import build_backbone
from ome.networks.segmenters import build_segmenter
from ome.training.fit import fitted_precision
from ome.training.hardware import Hardware, autocast, channels_last
from ome.training.kernels import TOLERANCE, replace_unsafe_strides, replace_wrong_kernels
from tests.conftest import CONF

BACKBONES = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml"))
SEGMENTERS = sorted(path.stem for path in (CONF / "segmenter").glob("*.yaml"))
ENCODERS = {"efficientnet-b0": 16, "repvgg_a0": 32}
"""Those of others' packages, with layers unlike those of the backbones above, and their strides."""
SIDE = 256
SLOW = ("resnet18", "resnet38d", "resnet50", "pspnet", "segformer", "unet", "upernet")
"""Without convolutions of another kind than the others have."""


def network_of(group: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    if group == "segmenter":
        return build_segmenter(name, "test_vit" if name == "dpt" else "mobilenet_v2", 3)
    if group == "encoder":
        return build_backbone(name, None, ENCODERS[name], 3)
    chosen = OmegaConf.load(CONF / f"backbone/{name}.yaml")
    encoder = "timm-tf_efficientnet_lite0" if name == "encoder" else chosen.name
    return build_backbone(encoder, None, chosen.output_stride, 3)


def gradients(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    torch.manual_seed(1)  # of dropout
    with autocast(image.device, "bf16-mixed"):
        output = network(image)
        output = output if isinstance(output, Tensor) else output[-1]
    output.float().square().mean().backward()
    return {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}


def watched(network: nn.Module) -> Iterator[tuple[nn.Conv2d, dict[str, Tensor]]]:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            tensors: dict[str, Tensor] = {}

            def watch(
                _: nn.Module, images: tuple[Tensor], output: Tensor, tensors: dict[str, Tensor] = tensors
            ) -> None:
                tensors["images"] = images[0].detach().clone()
                output.register_hook(lambda upstream: tensors.update(upstream=upstream))

            module.register_forward_hook(watch)
            yield module, tensors


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, marks=[pytest.mark.slow] if name in SLOW else [])
        for group, names in (("backbone", BACKBONES), ("segmenter", SEGMENTERS), ("encoder", ENCODERS))
        for name in names
    ],
)
def test_gradients_are_right_and_the_same_twice(group: str, name: str) -> None:
    network = channels_last(network_of(group, name)).eval()
    replace_unsafe_strides(network)
    replace_wrong_kernels(network)
    layers = list(watched(network))
    grouped = any(module.groups > 1 for module, _ in layers)
    side = SIDE if grouped else SIDE // 2  # no more time than it takes
    image = torch.rand(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    first = gradients(network, image)
    assert first
    tried: set[object] = set()
    for module, tensors in layers:
        kind = tensors and (str(module), *tensors["images"].shape)
        if "upstream" not in tensors or kind in tried:
            continue
        tried.add(kind)
        images, upstream = tensors["images"].float(), tensors["upstream"].float()
        weight = module.weight.detach().requires_grad_()
        # Called as a layer, as some pad their input by its size.
        exact = functional_call(module, {"weight": weight}, (images,))
        (exact,) = torch.autograd.grad(exact, weight, upstream)
        assert module.weight.grad is not None
        assert (module.weight.grad - exact).norm() <= TOLERANCE * exact.norm(), module
    if grouped:  # where torch gave other gradients each time
        second = gradients(network, image)
        assert all(torch.equal(first[key], second[key]) for key in first)


def dilated(groups: int) -> nn.Sequential:
    """A convolution with which torch's kernel reads outside its memory: killed in two tries of three."""
    layer = nn.Conv2d(16, 16, 3, padding=12, dilation=12, groups=groups)
    return channels_last(nn.Sequential(layer))


UNSAFE = {
    "dilated, in groups of four": lambda: dilated(4),
    "dilated, in groups of one": lambda: dilated(16),
    "a large padded kernel": lambda: channels_last(nn.Sequential(nn.Conv2d(16, 16, 16, 16, padding=7))),
    "a large kernel that keeps the size": lambda: channels_last(
        nn.Sequential(nn.Conv2d(16, 16, 9, padding="same"))
    ),
}
"""Convolutions whose kernel accesses memory that is not its own."""


@pytest.mark.parametrize("kind", UNSAFE)
def test_convolutions_that_may_kill_the_process_are_replaced_untried(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ome.training.kernels.is_wrong", lambda *kind: pytest.fail(f"{kind} is tried"))
    network = UNSAFE[kind]()
    assert replace_wrong_kernels(network) == 1
    image = torch.rand(2, 16, 32, 32).contiguous(memory_format=torch.channels_last)
    actual = gradients(network, image)
    network.zero_grad()
    network(image).square().mean().backward()
    for name, value in network.named_parameters():
        torch.testing.assert_close(actual[name], value.grad)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_wrong_kernels_are_replaced_wherever_a_training_computes_in_bfloat16(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ome.training.kernels.is_wrong", lambda *_: True)
    network = nn.Sequential(nn.Conv2d(16, 16, 3, groups=4), nn.Conv2d(16, 16, 3, dilation=2))
    _, replaced = fitted_precision(network, Hardware("cpu", precision=precision))
    with autocast(torch.device("cpu"), precision):
        computed = nn.Conv2d(1, 1, 1)(torch.rand(1, 1, 1, 1)).dtype
    assert (replaced > 0) == (computed == torch.bfloat16)


def test_convolutions_without_groups_or_dilation_stay() -> None:
    patches = nn.Conv2d(3, 16, 16, stride=16)
    network = nn.Sequential(nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 3, dilation=2), patches)
    assert replace_wrong_kernels(network) == 0


@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("key", ["kernel_size", "stride", "padding", "dilation"])
def test_sizes_may_be_lists(key: str, groups: int) -> None:
    sizes: dict[str, object] = {"kernel_size": 3, "padding": 2, "dilation": 2, key: [2, 2]}
    layer = nn.Conv2d(16, 16, groups=groups, **sizes)  # type: ignore[arg-type]
    setattr(layer, key, [2, 2])
    assert replace_wrong_kernels(nn.Sequential(layer)) == (groups > 1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize("stride", [2, 3, (2, 1)])
@pytest.mark.parametrize("channels", [1, 3, 15])
def test_narrow_convolutions_with_a_stride_compute_without(
    channels: int, stride: int | tuple[int, int], side: int, precision: str
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(channels, 8, 1, stride))
    exact = deepcopy(network).double()
    for _ in range(2):  # a second training of the same network
        fitted_precision(network, Hardware("cpu", precision=precision))
    assert network[0].stride == (1, 1)
    image = torch.rand(2, channels, side, side).contiguous(memory_format=torch.channels_last)
    with autocast(image.device, precision):
        output = network(image)
    expected = exact(image.double().contiguous())
    tolerance = 1e-5 if precision == "32-true" else TOLERANCE
    torch.testing.assert_close(output.double(), expected, atol=tolerance, rtol=tolerance)
    output.float().square().mean().backward()
    expected.square().mean().backward()
    for value, other in zip(network.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(value.grad.double(), other.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 8, 1, 2),
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(3, 8, 1, 2, padding=1),
        nn.Conv2d(3, 8, 2, 2),
        nn.Conv2d(4, 8, 1, 2, groups=2),
    ],
    ids=str,
)
def test_other_strides_stay(layer: nn.Conv2d) -> None:
    stride = layer.stride
    replace_unsafe_strides(nn.Sequential(layer))
    assert (layer.stride, type(layer)) == (stride, nn.Conv2d)


DILATED = (
    "import sys; from ome.training.kernels import is_wrong; "
    "sys.exit(7 if is_wrong(1, (3, 3), (1, 1), *[({0}, {0})] * 2) else 0)"
)
STRIDED = (
    "import torch; w = torch.randn(48, {0}, 1, 1, requires_grad=True); "
    "x = torch.randn(2, {0}, 128, 128).to(memory_format=torch.channels_last); "
    "[torch.conv2d(x, w, None, 2).square().mean().backward() for _ in range(40)]"
)


@pytest.mark.slow
@pytest.mark.parametrize("script", [*map(DILATED.format, (2, 12)), *map(STRIDED.format, (3, 15))])
def test_torch_is_wrong_where_it_is_replaced(script: str) -> None:
    """Once this fails, torch has mended its kernel. In a process of its own, which the kernel may kill."""
    status = subprocess.run([sys.executable, "-c", script], check=False).returncode
    assert status == 7 or status < 0
