"""Depthwise convolutions of a training on a CPU, against torch's plain ones in float64."""

import copy
from typing import Any

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from ome.training.compiling import compiled
from ome.training.depthwise import Depthwise, speed_up_depthwise
from ome.training.depthwise_gradients import SMALL
from ome.training.hardware import autocast, channels_last

CHANNELS = 19
"""A number that no vector of the processor divides."""

SHAPES: dict[str, dict[str, Any]] = {
    f"{kernel}, stride {stride}, dilation {dilation}, padding {padding}": {
        "kernel_size": kernel, "stride": stride, "dilation": dilation, "padding": padding,
    }
    for kernel in (1, 2, 3, 5, 7, (5, 3), (1, 5), (2, 4))
    for stride, dilation, padding in (
        (1, 1, 0), (1, 1, 2), (1, 2, 4), (1, (1, 3), (5, 0)), (1, 1, 9), (2, 1, 2), (3, 1, 0),
        ((1, 2), 2, (0, 3)),
    )
}  # fmt: skip
NAMED: dict[str, dict[str, Any]] = {
    f"{kernel} {padding}, dilation {dilation}": {
        "kernel_size": kernel, "padding": padding, "dilation": dilation,
    }
    for kernel in (3, 5, (3, 7)) for padding in ("same", "valid") for dilation in (1, 2)
}  # fmt: skip
MODES = {
    mode: {"kernel_size": 5, "padding": 2, "padding_mode": mode}
    for mode in ("reflect", "replicate", "circular")
}


def convolution(kind: type[nn.Conv2d] = nn.Conv2d, bias: bool = False, **sizes: Any) -> nn.Conv2d:  # noqa: ANN401
    torch.manual_seed(0)
    return channels_last(kind(CHANNELS, CHANNELS, groups=CHANNELS, bias=bias, **sizes))


def results(layer: nn.Module, images: Tensor, precision: str = "32-true") -> list[Tensor]:
    """The result and its gradients: of the images, and of all parameters."""
    images = images.clone().requires_grad_()
    with autocast(torch.device("cpu"), precision):
        output = layer(images)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # In the layout that networks have.
    upstream = upstream.to(output.dtype).contiguous(memory_format=torch.channels_last)
    return [output, *torch.autograd.grad(output, [images, *layer.parameters()], upstream)]


def pair(layer: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The same layer with our gradients, and in float64 with torch's."""
    plain = copy.deepcopy(layer).double()
    speed_up_depthwise(layer)
    small = {*layer.stride, *layer.dilation} == {1} and layer.weight[0].numel() <= SMALL
    assert isinstance(layer, Depthwise) != small
    assert not isinstance(plain, Depthwise)
    return layer, plain


def images_of(layout: torch.memory_format = torch.channels_last, side: int = 17) -> Tensor:
    images = torch.randn(3, CHANNELS, side, side + 4, generator=torch.Generator().manual_seed(2))
    return images.contiguous(memory_format=layout)


@pytest.mark.parametrize("name", [*SHAPES, *NAMED, *MODES])
def test_float32_is_exact_to_rounding(name: str) -> None:
    layer, plain = pair(convolution(bias=name not in SHAPES, **{**SHAPES, **NAMED, **MODES}[name]))
    images = images_of()
    for actual, expected in zip(results(layer, images), results(plain, images.double()), strict=True):
        assert actual.dtype == torch.float32
        assert actual.shape == expected.shape
        assert (actual - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("name", [*SHAPES, *NAMED])
def test_bfloat16_differs_by_its_rounding_alone(name: str) -> None:
    layer, plain = pair(convolution(bias=True, **{**SHAPES, **NAMED}[name]))
    with torch.no_grad():
        for parameter in (*layer.parameters(), *plain.parameters()):
            parameter.copy_(parameter.bfloat16())
    images = images_of().bfloat16().float()
    actual, expected = results(layer, images, "bf16-mixed"), results(plain, images.double())
    assert [value.dtype for value in actual] == [torch.bfloat16, *[torch.float32] * 3]
    for index, (ours, exact) in enumerate(zip(actual, expected, strict=True)):
        # Weights and biases are summed in float32, of an upstream gradient that was rounded.
        assert (ours - exact).norm() <= (0.004 if index < 2 else 0.006) * exact.norm()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_layout_do_not_change_a_byte(threads: int, layout: torch.memory_format) -> None:
    layer, _ = pair(convolution(kernel_size=5, padding=2))
    expected = results(layer, images_of())[2]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(results(layer, images_of(layout))[2], expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [5, 3])
def test_a_subclass_pads_its_images_first(size: int) -> None:
    """Timm's layer for weights of TensorFlow pads one side more than the other."""
    layer, plain = pair(convolution(Conv2dSame, kernel_size=size, stride=2))
    images = images_of(side=16)
    for actual, expected in zip(results(layer, images), results(plain, images.double()), strict=True):
        assert (actual - expected).norm() <= 1e-6 * expected.norm()


def test_other_convolutions_stay() -> None:
    layers = [
        nn.Conv2d(8, 8, 5),
        nn.Conv2d(8, 8, 5, groups=4),
        nn.Conv2d(8, 16, 5, groups=8),
        nn.Conv2d(1, 1, 5),
        nn.Conv2d(8, 8, 4, groups=8, padding="same"),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.ConvTranspose2d(8, 8, 5, groups=8),
    ]
    speed_up_depthwise(nn.Sequential(*layers))
    assert not any(isinstance(layer, Depthwise) for layer in layers)


def test_parameters_and_keys_stay() -> None:
    network = nn.Sequential(convolution(kernel_size=5), nn.BatchNorm2d(CHANNELS))
    before = {name: id(value) for name, value in network.named_parameters()}
    speed_up_depthwise(network)
    speed_up_depthwise(network)
    assert {name: id(value) for name, value in network.named_parameters()} == before
    assert type(network[0]).__mro__.count(Depthwise) == 1
    copied = copy.deepcopy(network)
    copied.load_state_dict(network.state_dict())
    assert torch.equal(copied(images_of()), network(images_of()))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_without_gradients_bytes_are_those_of_the_plain_layer(precision: str) -> None:
    """As a network that was trained in this process and one that was loaded predict the same."""
    layer = convolution(kernel_size=5, padding=2, bias=True)
    plain = copy.deepcopy(layer)
    speed_up_depthwise(layer)
    with torch.no_grad(), autocast(torch.device("cpu"), precision):
        assert torch.equal(layer(images_of()), plain(images_of()))


@pytest.mark.parametrize("frozen", ["images", "weight"])
def test_only_the_gradients_that_are_used_are_computed(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = pair(convolution(kernel_size=5))
    images = images_of().requires_grad_(frozen != "images")
    layer.requires_grad_(frozen != "weight")
    name = "image_gradient" if frozen == "images" else "weight_gradient"
    monkeypatch.setattr(f"ome.training.depthwise.{name}", lambda *_: pytest.fail("computed"))
    layer(images).sum().backward()
    assert (images.grad is None) == (frozen == "images")
    assert (layer.weight.grad is None) == (frozen == "weight")


def test_a_keyword_call_and_other_functions_pass() -> None:
    class Named(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return F.relu(F.conv2d(input=input, weight=self.weight, groups=self.groups))

    layer, plain = pair(convolution(Named, kernel_size=5))
    torch.testing.assert_close(layer(images_of()), plain.float()(images_of()))


def test_another_convolution_of_the_same_layer_is_torchs() -> None:
    class Mixed(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            mixed = F.conv2d(input, input.new_ones(CHANNELS, CHANNELS, 1, 1))
            return super().forward(mixed)

    layer, plain = pair(convolution(Mixed, kernel_size=5))
    torch.testing.assert_close(layer(images_of()), plain.float()(images_of()))
    torch.testing.assert_close(layer(images_of()[0]), plain(images_of()[0]))  # without a batch


def test_doubles_keep_their_precision() -> None:
    layer = convolution(kernel_size=5, padding=4, dilation=2).double()
    layer, plain = pair(layer)
    images = images_of().double()
    for actual, expected in zip(results(layer, images), results(plain, images), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("size", [3, 5])
def test_a_compiled_network_is_the_same(size: int) -> None:
    assert (size**2 <= SMALL) == (size == 3)
    layer, _ = pair(convolution(kernel_size=size, padding=2 * (size // 2), dilation=2))
    expected = results(layer, images_of())
    layer.forward = compiled(layer.forward, torch.device("cpu"), "aot_eager")  # type: ignore[method-assign]
    for actual, value in zip(results(layer, images_of()), expected, strict=True):
        torch.testing.assert_close(actual, value)
