"""The running average of the weights against a loop, and what a training leaves of it."""

import copy
from typing import Any, get_args

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ome.config.schema.general import Precision
from ome.training.averaging import _Average, averaging

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


def trained(memory: float, precision: Any = "32-true") -> Learner:  # noqa: ANN401 - Lightning's
    module = Learner()
    samples: Any = list(torch.randn(4 * STEPS, 2, 3, 3))
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,
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


@pytest.mark.parametrize("precision", [name for name in get_args(Precision) if name != "auto"])
def test_the_average_of_every_precision_is_that_of_its_weights(precision: str) -> None:
    module = trained(0.25, precision)
    expected = {name: value.double() for name, value in module.states[0].items()}
    for state in module.states[1:]:
        for name, value in state.items():
            mean = 0.9 * expected[name] + 0.1 * value
            expected[name] = mean if value.is_floating_point() else mean.floor()
    for name, value in module.network.state_dict().items():
        assert value.dtype == module.states[0][name].dtype
        torch.testing.assert_close(value, expected[name].to(value.dtype), msg=name)


def test_without_memory_there_is_no_average() -> None:
    assert averaging(0.0, total_steps=10) == []
    module = trained(0.0)
    for name, value in module.network.state_dict().items():
        torch.testing.assert_close(value, module.states[-1][name], msg=name)


class Counted(nn.Module):
    """Parameters and buffers of several types, among them whole numbers and a truth."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3))
        self.register_buffer("place", torch.arange(6).reshape(2, 3))
        self.register_buffer("small", torch.tensor([3, 200], dtype=torch.uint8))
        self.register_buffer("seen", torch.tensor([True, False]))
        self.register_buffer("halves", torch.tensor([0.5, 2.0], dtype=torch.bfloat16))


def moved(model: nn.Module, generator: torch.Generator) -> None:
    """Changes every tensor of a model in place."""
    for tensor in (*model.parameters(), *model.buffers()):
        step = torch.randint(1, 20, tensor.shape, generator=generator)
        tensor.data.copy_(~tensor.data if tensor.dtype == torch.bool else tensor.data + step.to(tensor.dtype))


def test_the_average_is_torch_s_to_the_bit_and_goes_on_from_a_checkpoint() -> None:
    generator, model = torch.Generator().manual_seed(0), Counted()
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7), use_buffers=True)
    ours = _Average(model, 0.7)
    for step in range(5):
        moved(model, generator)
        if step == 3:  # as a resumed run has it
            ours, state = _Average(model, 0.7), ours.state_dict()
            ours.load_state_dict(state)
        for average in (theirs, ours):
            average.update_parameters(model)
        expected, actual = theirs.state_dict(), ours.state_dict()
        assert list(expected) == list(actual)
        assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_the_average_lies_on_the_device_that_the_module_is_moved_to() -> None:
    module, (callback,) = Learner(), averaging(0.1, total_steps=10)
    module._device = torch.device("meta")  # as Lightning has it in `setup`; the tensors follow later
    trainer: Any = None  # of no use to it
    callback.setup(trainer, module, "fit")
    average: Any = callback
    tensors = average._average_model.state_dict().values()
    assert {tensor.device.type for tensor in tensors} == {"meta"}
