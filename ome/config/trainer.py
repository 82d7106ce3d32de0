"""Callbacks and arguments of `pl.Trainer` from the configuration.

Importing this module imports neither torch nor Lightning, so that the command line is checked quickly.
"""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, Literal, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from ome.config.schema import Trainer
from ome.config.schema.hints import expected, fits, parse
from ome.errors import UserError

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback

HARDWARE: Final = tuple(field.name for field in fields(Trainer))
"""Keys of `trainer` that are fields of `Hardware`; the others are arguments of `pl.Trainer`."""

RESERVED: Final = {
    "accumulate_grad_batches": "set stage.cam.batch or segmenter.recipe.batch",
    "barebones": "it leaves out checkpoints",
    "callbacks": "type callbacks=early_stopping, or add a file to conf/callbacks",
    "default_root_dir": "set run_dir",
    "enable_autolog_hparams": "choose a logger=...",
    "enable_checkpointing": "an interrupted training resumes from its checkpoint",
    "enable_model_summary": "ome shows the progress itself",
    "enable_progress_bar": "ome shows the progress itself",
    "fast_dev_run": "set stage.cam.epochs=1 or segmenter.recipe.steps=2",
    "limit_train_batches": "set stage.cam.epochs or segmenter.recipe.steps",
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

PLAIN: Final = {bool, int, float, str, type(None)}
"""Types of arguments that are checked by their annotation."""


def trainer_arguments(config: DictConfig) -> dict[str, Any]:
    """The configured arguments of `pl.Trainer`, with the objects of `_target_`s instantiated.

    Raises:
        UserError: One of these objects cannot be created.
    """
    return {key: _created(f"trainer.{key}", value) for key, value in further_arguments(config).items()}


def callbacks_of(config: DictConfig) -> "list[Callback]":
    """Instantiates the group `callbacks` for one training.

    Raises:
        UserError: An entry has no `_target_`, or cannot be instantiated.
    """
    if not config.get("callbacks"):
        return []
    from pytorch_lightning.callbacks import Callback  # noqa: PLC0415 - slow to import

    objects = []
    for name, entry in config.callbacks.items():
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
        check_annotated(key, type(created), value)
    return created


def check_annotated(key: str, kind: type, arguments: Mapping[str, Any]) -> None:
    """Refuses e.g. text where a class takes numbers: many classes notice it only when they are used."""
    try:
        annotations = get_type_hints(kind.__init__)  # type: ignore[misc]  # of this class
    except (NameError, TypeError):  # of types that are imported for type checkers only
        return
    for name, annotation in annotations.items():
        hint = parse(annotation)
        plain = all(option in PLAIN or get_origin(option) is Literal for option in hint.options)
        if plain and name in arguments and not fits(arguments[name], hint):
            raise UserError(f"{key}.{name}={arguments[name]}: expected {expected(hint)}")


def training_extras(config: DictConfig) -> dict[str, Any]:
    """Callbacks, arguments of the trainer and `trainer.compile` if set, for the fingerprint of trainings."""
    extras = {f"trainer.{key}": value for key, value in further_arguments(config).items()}
    if config.trainer.compile:
        extras["trainer.compile"] = True
    if callbacks := config.get("callbacks"):
        extras["callbacks"] = OmegaConf.to_container(callbacks, resolve=True)
    return extras


def known_arguments() -> set[str]:
    """The names of the arguments of `pl.Trainer`."""
    import pytorch_lightning as pl  # noqa: PLC0415 - takes its time

    return set(inspect.signature(pl.Trainer).parameters)


def further_arguments(config: DictConfig) -> dict[str, Any]:
    """The keys of `trainer` that are arguments of `pl.Trainer`."""
    plain: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    return {key: value for key, value in plain.items() if key not in HARDWARE}
