"""The running average of the weights against a loop, and what a training leaves of it."""

import copy
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ome.training.averaging import averaging

STEPS = 5


class Learner(pl.LightningModule):
    """A convolution and a BatchNorm; keeps its state after each step, and what it is validated with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
        self.states: list[dict[str, Tensor]] = []
        self.validated: dict[str, Tensor] = {}

    def training_step(self, batch: Tensor) -> Tensor:
        if self.global_step:
            self.states.append(copy.deepcopy(self.network.state_dict()))
        loss: Tensor = self.network(batch).square().mean() + self.network[0].weight.square().sum()
        return loss

    def on_train_epoch_end(self) -> None:
        self.states.append(copy.deepcopy(self.network.state_dict()))

    def validation_step(self, batch: Tensor) -> None:
        del batch
        assert not any(layer.training for layer in self.network.modules())
        self.validated = copy.deepcopy(self.network.state_dict())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(memory: float) -> Learner:
    module = Learner()
    samples: Any = list(torch.randn(4 * STEPS, 2, 3, 3))
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        callbacks=averaging(memory, total_steps=40),
        **options,
    )
    trainer.fit(module, DataLoader(samples, 4), DataLoader(samples[:1]))
    return module


@pytest.mark.parametrize(("memory", "decay"), [(0.25, 0.9), (0.025, 0.0), (0.001, 0.0)])
def test_the_average_is_exponential_in_weights_and_statistics(memory: float, decay: float) -> None:
    module = trained(memory)
    assert len(module.states) == STEPS
    expected = module.states[0]
    for state in module.states[1:]:
        for name, value in state.items():
            expected[name] = (decay * expected[name].double() + (1 - decay) * value.double()).to(value.dtype)
    for name, value in module.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
        torch.testing.assert_close(module.validated[name], expected[name], msg=name)


def test_without_memory_there_is_no_average() -> None:
    assert averaging(0.0, total_steps=10) == []
    module = trained(0.0)
    for name, value in module.network.state_dict().items():
        torch.testing.assert_close(value, module.states[-1][name], msg=name)
