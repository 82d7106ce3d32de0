"""Checks of the settings before the first stage starts."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from ome.config.cross_checks import cross_faults
from ome.config.schema import Settings
from ome.config.schema.hints import Hint, addresses, expected, fits, hints_of, text_of_number
from ome.config.unknown_settings import unknown_setting
from ome.errors import UserError, few
from ome.pipeline.registry import SIDE_STAGES, STAGES
from ome.plugins import STAGE_PLUGINS, is_plugin

OPEN: Final = "trainer."
"""The group with other keys too, the arguments of `pl.Trainer`, which `ome.config.trainer` checks."""

OTHERS: Final = {"": ("callbacks", "hydra"), "stage.": (*STAGES, *SIDE_STAGES)}
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
        raise UserError(*dict.fromkeys(lines))


def numbers_to_text(config: DictConfig) -> None:
    """Replaces numbers where a setting takes text, such as the name of a folder, in place."""
    values = _resolved(config)
    for key, hint in addresses(Settings):
        value: Any = values
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if (text := text_of_number(value, hint)) != value:
            OmegaConf.update(config, key, text)


def type_faults(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Addresses of settings of a wrong type or out of range, each with a line that says what is expected.

    A setting whose value is that of another such setting is left out: a single one has to be changed.
    """
    faults = dict(_faults(config, _resolved(config), Settings, ""))
    for key, line in faults.items():
        parent, _, name = key.rpartition(".")
        node: Any = OmegaConf.to_container(OmegaConf.select(config, parent) if parent else config)
        referred = re.findall(r"\$\{([\w.]+)\}", str(node.get(name)))
        others = {f"{parent}{other}" if other.startswith(".") else other for other in referred}
        if not others & {*faults} or "Recursive interpolation" in line:
            yield key, line


def _resolved(node: DictConfig) -> dict[str, Any]:
    """The settings below a node in plain types; an error stands for a value that cannot be resolved.

    They are resolved at once where they can be: one by one, they take half of the time of all checks.
    """
    with suppress(OmegaConfBaseException):
        return cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
    values: dict[str, Any] = {}
    for key in node:
        name = str(key)
        try:
            value = "???" if OmegaConf.is_missing(node, name) else node[name]
            if isinstance(value, ListConfig):
                value = OmegaConf.to_container(value, resolve=True)
            values[name] = _resolved(value) if isinstance(value, DictConfig) else value
        except OmegaConfBaseException as error:
            values[name] = error
    return values


def _faults(config: DictConfig, values: dict[str, Any], group: type, above: str) -> Iterator[tuple[str, str]]:
    """The faults of a group, whose settings `values` are, at addresses that begin with `above`."""
    hints = hints_of(group)
    known = {name for name, value in values.items() if value != "???" and not isinstance(value, Exception)}
    if above != OPEN and "_target_" not in known:
        for name in (name for name in values if name not in {*hints, *OTHERS.get(above, ())}):
            if values[name] == {} or (above == "stage." and _is_stage(values, name)):
                continue  # an option without settings, such as preset=gpu
            parent = OmegaConf.select(config, above.removesuffix(".")) if above else config
            typed = ".".join([f"{above}{name}", *_first(values[name])])
            yield f"{above}{name}", unknown_setting(f"{above}{name}", parent, typed)
    for name, expectation in hints.items():
        key, value = f"{above}{name}", values.get(name)
        if "_target_" in known and name not in known:
            continue  # an object of the user's
        if expectation.group is not None and isinstance(value, dict):
            yield from _faults(config, value, expectation.group, f"{key}.")
        elif (line := _fault(None if value == "???" else value, key, expectation)) is not None:
            yield key, line


def _first(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever was typed
    """The names on the way to the first setting in a group."""
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        yield str(name)


def _is_stage(stages: dict[str, Any], name: str) -> bool:
    """Whether settings are those of the selected stage, or of one from outside the package."""
    settings = stages[name]
    has_target = isinstance(settings, dict) and "_target_" in settings
    return has_target or name == stages.get("name") or is_plugin(name, STAGE_PLUGINS)


def _fault(value: Any, key: str, hint: Hint) -> str | None:  # noqa: ANN401 - whatever was typed
    if isinstance(value, InterpolationToMissingValueError):
        return None  # e.g. ${dataset.raw}; the stage that needs it reports it
    if isinstance(value, OmegaConfBaseException):
        return f"{key}: {str(value).splitlines()[0]}"
    if fits(value, hint):
        return None
    text = expected(hint)
    if hint.group is not None:
        text += f": type {key}.NAME=VALUE, with NAME among {few(hints_of(hint.group), 8)}"
    return f"{key} is not set: expected {text}" if value is None else f"{key}={value}: expected {text}"
