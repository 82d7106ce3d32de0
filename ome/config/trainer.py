"""Callbacks and arguments of `pl.Trainer` from the configuration.

Importing this module imports neither torch nor Lightning, so that the command line is checked quickly.
"""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from omegaconf import DictConfig, OmegaConf

from ome.config.schema import Trainer
from ome.config.schema.hints import expected, fits, parse
from ome.errors import UserError, guess

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback

HARDWARE: Final = tuple(field.name for field in fields(Trainer))
"""Keys of `trainer` that are fields of `Hardware`; the others are arguments of `pl.Trainer`."""

RESERVED: Final = {
    "accumulate_grad_batches": "set stage.cam.batch or segmenter.recipe.batch",
    "barebones": "it leaves out checkpoints",
    "callbacks": "type callbacks=ema, or add a file to conf/callbacks",
    "default_root_dir": "set run_dir",
    "enable_autolog_hparams": "choose a logger=...",
    "enable_checkpointing": "an interrupted training resumes from its checkpoint",
    "enable_model_summary": "ome shows the progress itself",
    "enable_progress_bar": "ome shows the progress itself",
    "fast_dev_run": "set stage.cam.epochs=1 or segmenter.recipe.steps=2",
    "log_every_n_steps": "history.csv has every tenth step",
    "logger": "choose logger=csv, tensorboard, wandb or none",
    "max_epochs": "set stage.cam.epochs or segmenter.recipe.steps",
    "max_steps": "set stage.cam.epochs or segmenter.recipe.steps",
    "min_epochs": "set stage.cam.epochs or segmenter.recipe.steps",
    "min_steps": "set stage.cam.epochs or segmenter.recipe.steps",
    "model_registry": "choose a logger=...",
    "num_sanity_val_steps": "validation runs after each epoch",
    "overfit_batches": "the order of the tiles is drawn by ome",
    "plugins": "choose trainer.strategy and trainer.precision",
    "reload_dataloaders_every_n_epochs": "the order of the tiles is drawn by ome",
    "sync_batchnorm": "several processes always share the statistics of BatchNorm",
    "use_distributed_sampler": "the order of the tiles is drawn by ome",
}
"""Arguments of `pl.Trainer` that ome sets itself, and what to do instead."""

POSITIVE: Final = ("check_val_every_n_epoch", "val_check_interval")
"""Arguments of `pl.Trainer` that divide by zero during the training if they are 0."""

PLAIN: Final = {bool, int, float, str, type(None)}
"""Types of arguments that are checked by their annotation."""


def trainer_arguments(config: DictConfig) -> dict[str, Any]:
    """The configured arguments of `pl.Trainer`, with the objects of `_target_`s instantiated.

    Raises:
        UserError: One of these objects cannot be created.
    """
    return {key: _created(f"trainer.{key}", value) for key, value in _arguments(config).items()}


def callbacks_of(config: DictConfig) -> "list[Callback]":
    """Instantiates the group `callbacks` for one training.

    Raises:
        UserError: An entry has no `_target_`, or cannot be instantiated.
    """
    from pytorch_lightning.callbacks import Callback  # noqa: PLC0415 - slow to import

    objects = []
    for name, entry in (config.get("callbacks") or {}).items():
        if not OmegaConf.is_dict(entry) or "_target_" not in entry:
            raise UserError(f"callbacks.{name} has no _target_: give the dotted name of a Lightning callback")
        callback = _created(f"callbacks.{name}", entry)
        if not isinstance(callback, Callback):
            raise UserError(f"callbacks.{name}: {entry['_target_']} is not a Lightning callback")
        objects.append(callback)
    return objects


def _created(key: str, value: Any) -> Any:  # noqa: ANN401 - whatever is configured
    """A value of the configuration; for one with a `_target_`, the object."""
    from hydra.errors import InstantiationException  # noqa: PLC0415
    from hydra.utils import instantiate  # noqa: PLC0415

    try:
        created = instantiate(value, _convert_="all") if "_target_" in str(value) else value
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        target = value.get("_target_", value) if isinstance(value, Mapping) else value
        raise UserError(f"{key}: cannot create {target}: {reason}") from error
    if created is not value and isinstance(value, Mapping):
        _check_annotated(key, type(created), value)
    return created


def _check_annotated(key: str, kind: type, arguments: Mapping[str, Any]) -> None:
    """Refuses e.g. text where a class takes numbers: many classes notice it only when they are used."""
    try:
        annotations = get_type_hints(kind.__init__)  # type: ignore[misc]  # of this class
    except (NameError, TypeError):  # of types that are imported for type checkers only
        return
    for name, annotation in annotations.items():
        hint = parse(annotation)
        if name in arguments and {*hint.options} <= PLAIN and not fits(arguments[name], hint):
            raise UserError(f"{key}.{name}={arguments[name]}: expected {expected(hint)}")


def training_extras(config: DictConfig) -> dict[str, Any]:
    """Callbacks, arguments of the trainer and `trainer.compile` if set, for the fingerprint of trainings."""
    extras = {f"trainer.{key}": value for key, value in _arguments(config).items()}
    if config.trainer.compile:
        extras["trainer.compile"] = True
    if callbacks := config.get("callbacks"):
        extras["callbacks"] = OmegaConf.to_container(callbacks, resolve=True)
    return extras


def known_arguments() -> set[str]:
    """The names of the arguments of `pl.Trainer`."""
    import pytorch_lightning as pl  # noqa: PLC0415 - takes its time

    return set(inspect.signature(pl.Trainer).parameters)


def check_training(config: DictConfig) -> None:
    """Checks arguments of the trainer, and callbacks, before the first stage starts.

    Raises:
        UserError: An argument does not exist, is reserved or wrong, or a callback cannot be created.
    """
    if arguments := _arguments(config):
        known = known_arguments()
        for key in arguments:
            if key in RESERVED:
                raise UserError(f"trainer.{key} is set by ome: {RESERVED[key]}")
            if key not in known:
                names = sorted({*known, *HARDWARE} - {*RESERVED})
                otherwise = "see the arguments of Lightning's Trainer"
                hint = guess(key, names, "did you mean trainer.{}?", otherwise)
                raise UserError(f"trainer.{key} is not an argument of pl.Trainer: {hint}")
            if key in POSITIVE and arguments[key] in {0, "0"}:
                raise UserError(f"trainer.{key}={arguments[key]}: expected a number above 0")
    callbacks = dict(zip(config.get("callbacks") or (), callbacks_of(config), strict=True))
    if arguments or callbacks:
        _check_values(trainer_arguments(config), callbacks)
    if callbacks:
        _check_callbacks(callbacks, str(config.logger.kind))


def _check_values(values: Mapping[str, Any], callbacks: "Mapping[Any, Callback]") -> None:
    """Lets Lightning check the arguments of its Trainer."""
    import pytorch_lightning as pl  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from lightning_fabric.utilities.exceptions import MisconfigurationException  # noqa: PLC0415

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


def _check_callbacks(callbacks: "Mapping[Any, Callback]", logger: str) -> None:
    from pytorch_lightning.callbacks import DeviceStatsMonitor, LearningRateMonitor  # noqa: PLC0415

    from ome.training.monitors import SCORES, check_monitor  # noqa: PLC0415

    plug_ins = any(not type(one).__module__.startswith("pytorch_lightning.") for one in callbacks.values())
    for name, callback in callbacks.items():
        if isinstance(callback, (DeviceStatsMonitor, LearningRateMonitor)) and logger == "none":
            raise UserError(f"callbacks.{name} writes to a logger, and logger=none: type logger=csv")
        if isinstance(callback, DeviceStatsMonitor) and find_spec("psutil") is None:
            raise UserError(f"callbacks.{name} needs psutil: pip install psutil")
        ours = str(getattr(callback, "monitor", "")).startswith(("train/", "learning_rate"))
        if not plug_ins and not ours:  # plug-ins may log more, and the terms of a loss depend on it
            check_monitor(f"callbacks.{name}", callback, SCORES)


def _arguments(config: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    return {key: value for key, value in plain.items() if key not in HARDWARE}
