"""The configuration that a stage is handed: what it has declared, and a trap at every other key.

A stage whose result depends on a setting that it does not declare would be taken for up to date when that
setting changes.
"""

from collections.abc import Iterable
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

FREE: Final = (
    *("stage", "name", "output", "run_dir", "scenes", "inherit", "force", "verify", "hydra"),
    *("dataset.name", "dataset.raw", "logger"),
    *("trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.workers"),
)
"""Keys that every stage may read: where things lie and how the work is done, which change no result."""

EVERYTHING: Final = "*"
"""For a stage that hands the configuration on to others."""

_RESOLVER: Final = "ome_undeclared"


class UndeclaredError(BaseException):
    """A stage reads a setting that is not among its `config_keys`, or asks whether it is there.

    Not an `Exception`, which OmegaConf takes in `key in config` for a value that is there.
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
            # What it refers to may not be declared itself.
            node[name] = _resolved(source, str(name))
        elif any(one.startswith(f"{key}.") for one in allowed) and OmegaConf.is_dict(node[name]):
            _close(node[name], source[name], f"{key}.", allowed)
        else:
            node[name] = f"${{{_RESOLVER}:{key}}}"


def _resolved(source: DictConfig, name: str) -> Any:  # noqa: ANN401 - whatever the key holds
    if OmegaConf.is_missing(source, name):
        return "???"
    try:
        value = source[name]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:  # it refers to something that is not set: whoever reads it is told
        return OmegaConf.to_container(source, resolve=False)[name]  # type: ignore[index, call-overload]


def _refuse(key: str) -> None:
    raise UndeclaredError(f"this stage reads {key} and does not declare it: name it in its config_keys")
