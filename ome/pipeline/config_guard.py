"""The configuration that a stage receives: reading a key that it has not declared raises an error.

Otherwise a stage could depend on a setting that is not in its fingerprint, and would wrongly count as up to
date when that setting changes.
"""

from collections.abc import Iterable
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

FREE: Final = (
    *("stage", "name", "output", "run_dir", "scenes", "inherit", "force", "verify", "hydra"),
    *("dataset.name", "dataset.raw", "logger"),
    *("trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.workers"),
    "trainer.compile",
)
"""Keys that every stage may read: paths and how the work is done, which do not change results.

`trainer.compile` changes the rounding of trainings, which record it where it is set.
"""

EVERYTHING: Final = "*"
"""Declared by a stage that passes the whole configuration on."""

_RESOLVER: Final = "ome_undeclared"


class UndeclaredError(BaseException):
    """A stage reads a setting that is not among its `config_keys`, or tests whether it exists.

    Not an `Exception`: OmegaConf swallows those in `key in config` and returns True.
    """


def declared_config(config: DictConfig, keys: Iterable[str]) -> DictConfig:
    """Copies a configuration so that reading a key that is not declared raises `UndeclaredError`.

    Args:
        config: The configuration with the settings of one stage under `stage`.
        keys: Dotted keys that the stage declares; a key stands for all below it, `EVERYTHING` for all.
    """
    allowed = {*FREE, *keys}
    if EVERYTHING in allowed:
        return config
    if not OmegaConf.has_resolver(_RESOLVER):
        OmegaConf.register_new_resolver(_RESOLVER, _refuse)
    guarded = config.copy()
    with open_dict(guarded):
        _close(guarded, config, "", allowed)
    return guarded


def _close(node: DictConfig, source: DictConfig, above: str, allowed: set[str]) -> None:
    for name in list(node):
        key = f"{above}{name}"
        if key in allowed:
            # Resolved now, since the keys that it refers to may not be declared.
            node[name] = _resolved(source, str(name))
        elif any(name.startswith(f"{key}.") for name in allowed) and OmegaConf.is_dict(node[name]):
            _close(node[name], source[name], f"{key}.", allowed)
        else:
            node[name] = f"${{{_RESOLVER}:{key}}}"


def _resolved(source: DictConfig, name: str) -> Any:  # noqa: ANN401 - whatever the key holds
    if OmegaConf.is_missing(source, name):
        return "???"
    try:
        value = source[name]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:  # it refers to a missing value: the error comes when it is read
        return OmegaConf.to_container(source, resolve=False)[name]  # type: ignore[index, call-overload]


def _refuse(key: str) -> None:
    raise UndeclaredError(f"this stage reads {key} without declaring it: add it to the stage's config_keys")
