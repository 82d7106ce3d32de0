"""The running average of the weights against a loop over numpy arrays, and what a training leaves of it."""

import copy

import pytest
import torch
from torch import nn

from ome.training.averaging import AveragedModule


class Averaged(AveragedModule):
    def __init__(self, network: nn.Module, memory: float, steps: int) -> None:
        super().__init__()
        self.network = network
        self.average_weights(memory, steps)


@pytest.mark.parametrize(("memory", "decay"), [(0.25, 0.9), (0.025, 0.0), (0.001, 0.0)])
def test_the_average_is_exponential_in_weights_and_statistics(memory: float, decay: float) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    module = Averaged(network, memory, steps=40)
    module.train()
    module.on_train_epoch_start()
    assert not any(layer.training for layer in module.scored_network.modules())
    expected = copy.deepcopy(network.state_dict())
    for step in range(5):
        with torch.no_grad():
            network(torch.randn(4, 2, 3, 3))  # moves the statistics
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        module.on_train_batch_end(None, None, step)
        for name, value in network.state_dict().items():
            old = expected[name] if step else value
            expected[name] = (decay * old.double() + (1 - decay) * value.double()).to(value.dtype)
    for name, value in module.scored_network.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    module.on_train_end()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_without_memory_there_is_no_average() -> None:
    module = Averaged(nn.Conv2d(1, 1, 1), 0.0, steps=10)
    module.on_train_batch_end(None, None, 0)
    assert module.scored_network is module.network
    assert [name for name, _ in module.named_parameters()] == ["network.weight", "network.bias"]
    module.on_train_end()
