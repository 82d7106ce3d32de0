"""Checks of callbacks and of arguments of `pl.Trainer` before the first stage.

Importing this module imports neither torch nor Lightning, so that the command line is checked quickly.
"""

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from omegaconf import DictConfig, OmegaConf

from ome.config.trainer import (
    HARDWARE,
    RESERVED,
    callbacks_of,
    check_annotated,
    further_arguments,
    known_arguments,
    trainer_arguments,
)
from ome.errors import UserError, guess

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback

POSITIVE: Final = ("check_val_every_n_epoch", "val_check_interval")
"""Arguments of `pl.Trainer` that divide by zero if they are 0."""

AVERAGES: Final = ("stage.cam.average", "segmenter.recipe.average")
"""Settings by which ome itself averages the weights of a training."""


def check_training(config: DictConfig) -> None:
    """Checks arguments of the trainer, and callbacks, before the first stage starts.

    Raises:
        UserError: An argument does not exist, is reserved or wrong, or a callback cannot be created.
    """
    if arguments := further_arguments(config):
        known = known_arguments()
        for key in arguments:
            if key in RESERVED:
                raise UserError(f"trainer.{key} is set by ome: {RESERVED[key]}")
            if key not in known:
                names = sorted({*known, *HARDWARE} - {*RESERVED})
                hint = guess(key, names, "did you mean trainer.{}?", "see Lightning's documentation")
                raise UserError(f"trainer.{key} is not an argument of pl.Trainer: {hint}")
            if key in POSITIVE and arguments[key] in {0, "0"}:
                raise UserError(f"trainer.{key}={arguments[key]}: expected a number above 0")
    callbacks = dict(zip(config.get("callbacks") or (), callbacks_of(config), strict=True))
    if arguments or callbacks:
        _check_values(trainer_arguments(config), callbacks)
    if callbacks:
        _check_callbacks(callbacks, config)


def _check_values(values: Mapping[str, Any], callbacks: "Mapping[Any, Callback]") -> None:
    """Lets Lightning check the arguments of its Trainer."""
    import pytorch_lightning as pl  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from lightning_fabric.utilities.exceptions import MisconfigurationException  # noqa: PLC0415

    check_annotated("trainer", pl.Trainer, values)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels, deterministic = [logger.level for logger in loggers], torch.are_deterministic_algorithms_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        pl.Trainer(accelerator="cpu", devices=1, callbacks=[*callbacks.values()], **quiet, **values)
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        typed = [f"trainer.{key}={value}" for key, value in values.items()]
        typed += [f"callbacks.{name}" for name in callbacks]
        raise UserError(
            f"{', '.join(typed)}: Lightning's Trainer says: {' '.join(str(error).split())}"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic)


def _check_callbacks(callbacks: "Mapping[Any, Callback]", config: DictConfig) -> None:
    from pytorch_lightning.callbacks import (  # noqa: PLC0415
        DeviceStatsMonitor,
        LearningRateMonitor,
        WeightAveraging,
    )

    from ome.training.monitors import SCORES, check_monitor  # noqa: PLC0415

    averages = {key: value for key in AVERAGES if (value := OmegaConf.select(config, key))}
    plug_ins = any(not type(one).__module__.startswith("pytorch_lightning.") for one in callbacks.values())
    for name, callback in callbacks.items():
        if isinstance(callback, (DeviceStatsMonitor, LearningRateMonitor)) and config.logger.kind == "none":
            raise UserError(f"callbacks.{name} writes to a logger, and logger=none: type logger=csv")
        if isinstance(callback, DeviceStatsMonitor) and find_spec("psutil") is None:
            raise UserError(f"callbacks.{name} needs psutil: pip install psutil")
        if isinstance(callback, WeightAveraging) and averages:
            key, value = next(iter(averages.items()))
            raise UserError(
                f"callbacks.{name} averages the weights, as {key}={value} does: leave it out, or {key}=0"
            )
        ours = str(getattr(callback, "monitor", "")).startswith(("train/", "learning_rate"))
        if not plug_ins and not ours:  # plug-ins may log more, and the terms of a loss depend on it
            check_monitor(f"callbacks.{name}", callback, SCORES)
