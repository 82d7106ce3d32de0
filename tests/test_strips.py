"""Layers applied strip by strip, against the same layers applied to the whole image."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ome.networks.resnet38d import ResNet38d
from ome.networks.strips import in_strips
from ome.training.hardware import channels_last


def _layers() -> nn.Sequential:
    """Stride 4; reaches 1 + 2 + 2 * 4 = 11 rows."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 3, 3, 1, 2, dilation=2)
    ).double()


@pytest.mark.parametrize("height", [3, 16, 37, 50, 64])
@pytest.mark.parametrize("rows", [1, 8, 14, 100])
def test_strips_are_the_whole(height: int, rows: int) -> None:
    layers, image = _layers(), torch.rand(2, 2, height, 13, dtype=torch.float64)
    with torch.inference_mode():
        whole, strips = layers(image), in_strips(layers, image, rows=rows, halo=11, stride=4)
    torch.testing.assert_close(strips, whole, rtol=0, atol=1e-12)


def test_no_more_rows_than_asked_for_are_seen_at_once() -> None:
    layers, heights = _layers(), []
    layers.register_forward_pre_hook(lambda _, inputs: heights.append(inputs[0].shape[2]))
    with torch.inference_mode():
        in_strips(layers, torch.rand(1, 2, 64, 8, dtype=torch.float64), rows=8, halo=11, stride=4)
    assert len(heights) == 8
    assert max(heights) == 8 + 2 * 12


@pytest.fixture(scope="module", params=[torch.contiguous_format, torch.channels_last])
def resnet38d(request: pytest.FixtureRequest) -> ResNet38d:
    """A ResNet38d with random weights, which take seconds to draw, in one of the two layouts."""
    torch.manual_seed(0)
    return ResNet38d().eval().to(memory_format=request.param)


def _layout(network: ResNet38d) -> torch.memory_format:
    kernel = network.conv1a.weight
    return torch.contiguous_format if kernel.is_contiguous() else torch.channels_last


def _passes(network: ResNet38d, images: torch.Tensor) -> tuple[list[torch.Size], list[torch.Tensor]]:
    """The maps of images, and the shapes of the parts in which they are computed."""
    passes: list[torch.Size] = []
    hook = network.conv1a.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0].shape))
    with torch.inference_mode(), hook:
        return passes, list(network(images))


def test_resnet38d_in_strips_is_resnet38d(resnet38d: ResNet38d, monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = resnet38d, torch.rand(1, 3, 104, 40)
    whole = [maps.detach() for maps in network(image)]  # with gradients, nothing is divided
    monkeypatch.setattr(network, "strip_pixels", 16 * 40)
    passes, strips = _passes(network, image)
    assert [shape[2] for shape in passes] == [36, 52, 56, 56, 56, 44, 28]
    for expected, actual in zip(whole, strips, strict=True):
        assert actual.is_contiguous(memory_format=_layout(network))
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_batch_is_computed_some_whole_images_at_a_time(
    resnet38d: ResNet38d, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = resnet38d, torch.rand(3, 3, 32, 24)
    monkeypatch.setattr(network, "strip_pixels", 2 * 32 * 24)
    passes, strips = _passes(network, images)
    assert [tuple(shape[::2]) for shape in passes] == [(2, 32), (1, 32)]
    with torch.inference_mode():
        alone = [network(images[number : number + 1]) for number in range(3)]
    expected = [torch.cat(maps) for maps in zip(*alone, strict=True)]
    for one, other in zip(expected, strips, strict=True):
        assert other.is_contiguous(memory_format=_layout(network))
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


def test_a_large_batch_costs_no_more_arithmetic_than_its_images() -> None:
    with torch.device("meta"):
        network = ResNet38d().eval()
    network.strip_pixels = 4 * 64 * 64
    flops = []
    for count in (4, 28):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(count, 3, 64, 64, device="meta"))
        flops.append(counter.get_total_flops() / count)
    assert flops[0] == flops[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-3), (torch.bfloat16, 5e-2)])
def test_a_gpu_gives_the_maps_of_the_cpu(dtype: torch.dtype, most: float) -> None:
    torch.manual_seed(0)
    network, images = channels_last(ResNet38d().eval()), torch.rand(5, 3, 64, 64)
    network.strip_pixels = 2 * 64 * 64
    with torch.inference_mode():
        expected = network(images)
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            actual = network.cuda()(images.cuda())
    for one, other in zip(expected, actual, strict=True):
        assert float((other.cpu().float() - one).norm() / one.norm()) < most
