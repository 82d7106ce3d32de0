"""Layers applied strip by strip, against the same layers applied to the whole image."""

import pytest
import torch
from torch import nn

from ome.networks.resnet38d import ResNet38d
from ome.networks.strips import in_strips


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
    layers, seen = _layers(), []
    layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2]))
    with torch.inference_mode():
        in_strips(layers, torch.rand(1, 2, 64, 8, dtype=torch.float64), rows=8, halo=11, stride=4)
    assert len(seen) == 8
    assert max(seen) == 8 + 2 * 12


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_resnet38d_in_strips_is_resnet38d(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    network, image = ResNet38d().eval().to(memory_format=layout), torch.rand(1, 3, 104, 40)
    whole = [maps.detach() for maps in network(image)]  # with gradients, nothing is divided
    network.strip_pixels = 16 * 40
    passes = []
    network.conv1a.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0].shape[2]))
    with torch.inference_mode():
        strips = network(image)
    assert passes == [36, 52, 56, 56, 56, 44, 28]
    for expected, found in zip(whole, strips, strict=True):
        assert found.is_contiguous(memory_format=layout)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
