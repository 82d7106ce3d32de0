"""BatchNorm's counters: the numbers that torch's own counting gives, in one operator."""

import copy

import pytest
import torch
from launches import Launches
from torch import Tensor, nn

from ome.networks.segmenters import build_segmenter
from ome.training.counters import counted_together


class Failing(nn.Sequential):
    def forward(self, image: Tensor) -> Tensor:
        image = super().forward(image)
        if image.shape[0] == 1:
            raise KeyError
        return image


def test_a_segmenter_has_the_state_that_it_has_without() -> None:
    torch.manual_seed(0)
    plain = build_segmenter("deeplabv3plus", "mobilenet_v2", 3).train()
    plain.encoder.get_submodule("features.0").eval()  # type: ignore[union-attr]
    together = copy.deepcopy(plain)
    together = together.to(memory_format=torch.channels_last)
    plain = plain.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 32, 32)
    with counted_together(together):
        for network in (plain, plain, together, together):
            torch.manual_seed(1)
            network(images)
        together.eval()(images)
    actual, expected = together.state_dict(), plain.state_dict()
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_counters_are_there_after_an_error_and_layers_that_average_by_them_count_themselves() -> None:
    network = Failing(nn.BatchNorm2d(1), nn.BatchNorm2d(1, momentum=None))
    with counted_together(network):
        network(torch.randn(2, 1, 4, 4))
        with pytest.raises(KeyError):
            network(torch.randn(1, 1, 4, 4))
        with Launches() as launches:
            network(torch.randn(2, 1, 4, 4))
    assert [int(layer.num_batches_tracked) for layer in network] == [3, 3]  # type: ignore[arg-type]
    assert launches.names["rest", "add_"] == launches.names["rest", "_foreach_add_"] == 1
