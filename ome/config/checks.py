"""Checks of the settings before the first stage starts."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from ome.config.cross_checks import cross_faults
from ome.config.schema import Settings
from ome.config.schema.hints import Hint, addresses, expected, fits, hints_of, text_of_number
from ome.config.unknown_settings import unknown_setting
from ome.errors import UserError
from ome.pipeline.artifacts import plain
from ome.pipeline.registry import SIDE_STAGES, STAGES
from ome.plugins import STAGE_PLUGINS, is_plugin

OPEN: Final = "trainer."
"""The group with other keys too, the arguments of `pl.Trainer`, which `ome.config.trainer` checks."""

OTHERS: Final = {"": ("callbacks", "hydra", "optimizer", "preset"), "stage.": (*STAGES, *SIDE_STAGES)}
"""Keys of groups that are not settings; plug-ins have stages too."""


def check_settings(config: DictConfig, stages: Sequence[str] = ()) -> None:
    """Checks all settings at once: types and ranges, and whether they fit each other, machine and disk.

    Raises:
        UserError: Some settings are wrong; the message has one line for each.
    """
    faults = dict(type_faults(config))
    lines: list[str] = []
    try:
        lines += cross_faults(config, stages, tuple(faults))
    except (TypeError, ValueError, AttributeError, OmegaConfBaseException):
        if not faults:  # otherwise it was caused by a value of a wrong type, which has a line
            raise
    of_types = [line for key, line in faults.items() if not any(re.match(f"{key}[= ]", one) for one in lines)]
    if lines := [*of_types, *lines]:
        raise UserError("\n".join(dict.fromkeys(lines)))


def numbers_to_text(config: DictConfig) -> None:
    """Replaces numbers where a setting takes text, such as the name of a folder, in place."""
    for key, hint in addresses(Settings):
        try:
            value = plain(config, key)
        except OmegaConfBaseException:
            continue  # `check_settings` says so
        if (text := text_of_number(value, hint)) != value:
            OmegaConf.update(config, key, text)


def type_faults(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Addresses of settings of a wrong type or out of range, each with a line that says what is expected.

    A setting whose value is that of another such setting is left out: a single one has to be changed.
    """
    faults = dict(_faults(config, Settings, ""))
    for key, line in faults.items():
        parent, _, name = key.rpartition(".")
        node: Any = OmegaConf.to_container(OmegaConf.select(config, parent) if parent else config)
        referred = re.findall(r"\$\{([\w.]+)\}", str(node.get(name)))
        others = {f"{parent}{other}" if other.startswith(".") else other for other in referred}
        if not others & {*faults} or "Recursive interpolation" in line:
            yield key, line


def _faults(config: DictConfig, group: type, above: str) -> Iterator[tuple[str, str]]:
    node = OmegaConf.select(config, above.removesuffix(".")) if above else config
    hints = hints_of(group)
    if above != OPEN and "_target_" not in node:
        known = [*hints, *OTHERS.get(above, ())]
        for name in (str(name) for name in node if name not in known):
            if above == "stage." and _is_stage(config, name):
                continue
            yield f"{above}{name}", unknown_setting(f"{above}{name}", node, f"{above}{name}")
    for name, expectation in hints.items():
        key = f"{above}{name}"
        if "_target_" in node and name not in node:
            continue  # an object of the user's
        if name in node and expectation.group is not None and OmegaConf.is_dict(node[name]):
            yield from _faults(config, expectation.group, f"{key}.")
        elif (line := _fault(config, key, expectation)) is not None:
            yield key, line


def _is_stage(config: DictConfig, name: str) -> bool:
    """Whether settings are those of the selected stage, or of one from outside the package."""
    settings = config.stage[name]
    has_target = OmegaConf.is_dict(settings) and "_target_" in settings
    return has_target or name == config.stage.name or is_plugin(name, STAGE_PLUGINS)


def _fault(config: DictConfig, key: str, hint: Hint) -> str | None:
    try:
        value = plain(config, key)
    except InterpolationToMissingValueError:
        return None  # e.g. ${dataset.raw}; the stage that needs it reports it
    except OmegaConfBaseException as error:
        return f"{key}: {str(error).splitlines()[0]}"
    if fits(value, hint):
        return None
    if value is None:
        return f"{key} is not set: expected {expected(hint)}"
    return f"{key}={value}: expected {expected(hint)}"
