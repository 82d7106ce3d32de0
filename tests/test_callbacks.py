"""Callbacks and arguments of the trainer, from YAML to Lightning."""

import inspect
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ome.cli.launch import launch
from ome.config.trainer import HARDWARE, RESERVED, callbacks_of, trainer_arguments, training_extras
from ome.config.trainer_checks import check_training
from ome.errors import UserError
from ome.training.fit import fit
from ome.training.hardware import Hardware
from ome.training.optimizers import Optimization
from ome.training.segmenter import UncertaintyWeightedSegmenter
from tests.conftest import compose_config
from tests.test_training import Pixelwise, batch

STEPS, LR = 4, 0.5


def composed(*overrides: str) -> DictConfig:
    return compose_config(["dataset=synthetic", "trainer=cpu", *overrides])


class Samples(pl.LightningDataModule):
    """The same batch at every step."""

    def train_dataloader(self) -> DataLoader[Any]:
        samples: Any = [{name: part[0] for name, part in batch().items()}] * 2
        return DataLoader(samples, 1)


class Recorder(pl.Callback):
    """Keeps the trainer, and the head's weight and bias before the first step and after each."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.trainer: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.trainer = trainer
        self.on_train_batch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:  # noqa: ANN401
        del trainer
        self.weights.append(nn.utils.parameters_to_vector(pl_module.network.head.parameters()).detach())


def trained(
    folder: Path,
    *callbacks: pl.Callback,
    precision: str = "32-true",
    **arguments: Any,  # noqa: ANN401
) -> tuple[nn.Module, Recorder]:
    """Trains two weights for four steps, with callbacks and arguments of the trainer."""
    torch.manual_seed(0)
    network, recorder = Pixelwise(), Recorder()
    network.encoder.requires_grad_(requires_grad=False)
    fit(
        UncertaintyWeightedSegmenter(
            network, total_steps=STEPS, optimizer=Optimization(lr=LR, momentum=0, weight_decay=0)
        ),
        Samples(),
        epochs=2,
        total_steps=STEPS,
        folder=folder,
        title="tiny",
        seed=0,
        hardware=Hardware("cpu", precision=precision),
        callbacks=[*callbacks, recorder],
        arguments=arguments,
    )
    return network, recorder


def test_there_are_none_by_default_and_several_on_demand() -> None:
    assert callbacks_of(composed()) == []
    callbacks = callbacks_of(composed("callbacks=[lr_monitor,early_stopping]"))
    assert [type(one) for one in callbacks] == [LearningRateMonitor, EarlyStopping, EarlyStopping]
    assert callbacks[0] is not callbacks_of(composed("callbacks=lr_monitor"))[0]


@pytest.mark.parametrize("name", ["early_stopping", "lr_monitor", "device_stats"])
def test_every_ready_one_passes_the_check(name: str) -> None:
    check_training(composed(f"callbacks={name}"))


def test_the_average_of_the_weights_is_what_is_kept(tmp_path: Path) -> None:
    network, recorder = trained(tmp_path, EMAWeightAveraging(decay=0.5))
    # The average starts as the weights after the first step.
    average = recorder.weights[1]
    for weights in recorder.weights[2:]:
        average = 0.5 * average + 0.5 * weights
    torch.testing.assert_close(nn.utils.parameters_to_vector(network.head.parameters()).detach(), average)
    weight = torch.load(tmp_path / "network.pt", weights_only=True)["head.weight"]
    torch.testing.assert_close(weight.flatten(), average[: weight.numel()])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_as_the_trainer_says(tmp_path: Path, precision: str) -> None:
    """Also where a fused optimiser steps under autocast, which Lightning's own clipping refuses."""

    def step(name: str, **arguments: Any) -> Tensor:  # noqa: ANN401
        _, recorder = trained(tmp_path / name, precision=precision, **arguments)
        gradient: Tensor = (recorder.weights[0] - recorder.weights[1]) / LR
        return gradient

    free, by_norm = step("free"), step("norm", gradient_clip_val=1e-2)
    assert free.norm() > 0.1
    torch.testing.assert_close(by_norm, free * 1e-2 / free.norm(), rtol=1e-3, atol=1e-5)
    by_value = step("value", gradient_clip_val=1e-2, gradient_clip_algorithm="value")
    torch.testing.assert_close(by_value, free.clamp(-1e-2, 1e-2), rtol=1e-3, atol=1e-5)


def test_any_argument_reaches_the_trainer(tmp_path: Path) -> None:
    config = composed("+trainer.limit_val_batches=1", "+trainer.gradient_clip_val=1.0")
    check_training(config)
    assert trainer_arguments(config) == {"limit_val_batches": 1, "gradient_clip_val": 1.0}
    _, recorder = trained(tmp_path, **trainer_arguments(config))
    assert recorder.trainer.limit_val_batches == 1


NUMBERS = [
    name
    for name, kind in get_type_hints(pl.Trainer.__init__).items()
    if {int, float} & {kind, *get_args(kind)} and name not in {*HARDWARE, *RESERVED}
]


@pytest.mark.parametrize("name", NUMBERS)
def test_no_argument_that_is_let_through_changes_the_number_of_steps(name: str, tmp_path: Path) -> None:
    """The schedule and the order of the tiles are those of all steps."""
    check_training(composed(f"+trainer.{name}=1"))
    _, recorder = trained(tmp_path, **{name: 1})
    assert len(recorder.weights) == 1 + STEPS


def test_a_value_that_lightning_refuses_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"check gradient_clip_val=high") as raised:
        trained(tmp_path, gradient_clip_val="high")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+trainer.gradient_clip_vall=1",
            r"trainer\.gradient_clip_vall is not .*mean trainer\.gradient_clip_val\?",
        ),
        ("+trainer.profiler={_target_:no.such.Profiler}", r"trainer\.profiler: cannot create no\.such\.Prof"),
        ("+trainer.val_check_interval=0", r"trainer\.val_check_interval=0: expected a number above 0"),
        ("+trainer.check_val_every_n_epoch=0.0", r"check_val_every_n_epoch=0\.0: expected a number above 0"),
        ("+trainer.limit_train_batches=0.5", r"trainer\.limit_train_batches is set by ome: set stage\.cam\."),
        ("+trainer.detect_anomaly=maybe", r"trainer\.detect_anomaly=maybe: expected true or false"),
        ("+trainer.deterministic=always", r"trainer\.deterministic=always: expected true, false or warn"),
        ("+trainer.gradient_clip_val=big", r"trainer\.gradient_clip_val=big: expected a number"),
        ("+trainer.max_steps=7", r"trainer\.max_steps is set by ome: set stage\.cam\.epochs or"),
        ("+trainer.logger=true", r"trainer\.logger is set by ome: choose logger=csv"),
        ("+trainer.default_root_dir=x", r"trainer\.default_root_dir is set by ome: set run_dir"),
        (
            "+callbacks.mine={_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:a,patience:soon}",
            r"callbacks\.mine\.patience=soon: expected a whole number",
        ),
        *(
            (
                f"+callbacks.mine={{_target_:pytorch_lightning.callbacks.{kind},monitor:{monitor}}}",
                rf"callbacks\.mine: {kind} monitors {monitor}, which is not logged{hint} there are valid",
            )
            for kind in ("EarlyStopping", "ModelCheckpoint")
            for monitor, hint in (
                ("val_loss", ";"),
                ("validation/mIoU", r"; did you mean validation/miou\?"),
                ("miou", ";"),
            )
        ),
        (
            "+callbacks.mine._target_=pytorch_lightning.callbacks.EMAWeightAveraging",
            r"callbacks\.mine averages the weights, as segmenter\.recipe\.average=0\.05 does: leave it out",
        ),
        ("+callbacks.mine.decay=1", r"callbacks\.mine has no _target_"),
        ("+callbacks.mine._target_=no.such.thing", r"callbacks\.mine: cannot create no\.such\.thing"),
        ("+callbacks.mine._target_=builtins.dict", r"callbacks\.mine: builtins\.dict is not a Lightning"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_the_first_stage(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        launch(composed("stage=all", override))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", [EarlyStopping, ModelCheckpoint])
def test_a_training_without_the_score_that_a_callback_monitors_is_one_line(
    tmp_path: Path, kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Samples, "val_dataloader", Samples.train_dataloader)
    callback = kind(monitor="validation/f1")  # the classifier's
    with pytest.raises(UserError, match=r"tiny: .* monitors validation/f1, which is not logged; did"):
        trained(tmp_path, callback)


def test_a_checkpoint_of_the_users_own_is_written_beside_ours(tmp_path: Path) -> None:
    own = ModelCheckpoint(tmp_path / "own", every_n_epochs=1, save_top_k=-1)  # settings that ours has, too
    trained(tmp_path / "tiny", own)
    assert len([*(tmp_path / "own").glob("*.ckpt")]) == 2


def test_equal_callbacks_are_one_line_before_the_first_stage() -> None:
    one = "{_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:validation/miou}"
    with pytest.raises(UserError, match=r"callbacks\.a, callbacks\.b: .* more than one stateful callback"):
        check_training(composed(f"+callbacks.a={one}", f"+callbacks.b={one}"))


def test_a_callback_that_logs_needs_a_logger() -> None:
    with pytest.raises(UserError, match=r"callbacks\.lr_monitor writes to a logger"):
        check_training(composed("callbacks=lr_monitor", "logger=none"))


def test_every_reserved_argument_exists() -> None:
    assert set(RESERVED) <= set(inspect.signature(pl.Trainer).parameters)


def test_the_fingerprint_knows_what_is_given_and_nothing_else() -> None:
    assert training_extras(composed()) == {}
    assert training_extras(composed("trainer.compile=true")) == {"trainer.compile": True}
    assert training_extras(composed("callbacks=lr_monitor", "+trainer.benchmark=true")) == {
        "trainer.benchmark": True,
        "callbacks": {
            "lr_monitor": {
                "_target_": "pytorch_lightning.callbacks.LearningRateMonitor",
                "logging_interval": "step",
            }
        },
    }


class Breaking(pl.Callback):
    """Breaks the training in its third step, after the checkpoint of the first epoch."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:  # noqa: ANN401
        if trainer.global_step == 2:
            raise KeyError


def test_the_average_survives_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        trained(tmp_path / "broken", EMAWeightAveraging(decay=0.5), Breaking())
    whole, resumed = (trained(tmp_path / name, EMAWeightAveraging(decay=0.5)) for name in ("whole", "broken"))
    assert len(resumed[1].weights) < len(whole[1].weights)
    files = [(tmp_path / name / "network.pt").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]
