"""Checks of the settings before the first stage starts."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from ome.config.cross_checks import cross_faults
from ome.config.schema import Settings
from ome.config.schema.hints import Hint, expected, fits, hints_of
from ome.errors import UserError
from ome.pipeline.artifacts import plain

OPEN: Final = ("", "trainer.", "stage.")
"""Groups with more than settings: groups of Hydra, arguments of Lightning's Trainer, stages of plug-ins."""


def check_settings(config: DictConfig, stages: Sequence[str] = ()) -> None:
    """Checks all settings at once: types and ranges, and what stages need together.

    Args:
        config: The composed configuration.
        stages: The stages that will run.

    Raises:
        UserError: Some are wrong; a line for each says what is expected.
    """
    faults = dict(type_faults(config))
    lines = list(faults.values())
    try:
        lines += cross_faults(config, stages, tuple(faults))
    except (TypeError, ValueError, AttributeError, OmegaConfBaseException):
        if not lines:  # else a value of a wrong type, which has its line already
            raise
    if lines:
        raise UserError("\n".join(dict.fromkeys(lines)))


def type_faults(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Addresses of settings of a wrong type or out of range, each with a line that says what is expected."""
    yield from _faults(config, Settings, "")


def _faults(config: DictConfig, group: type, above: str) -> Iterator[tuple[str, str]]:
    node = OmegaConf.select(config, above.removesuffix(".")) if above else config
    hints = hints_of(group)
    if above not in OPEN and "_target_" not in node:
        for name in (str(name) for name in node if name not in hints and not str(name).startswith("_")):
            near = difflib.get_close_matches(name, hints, n=1)
            way = f"did you mean {above}{near[0]}?" if near else f"known are {', '.join(hints)}"
            yield f"{above}{name}", f"unknown setting {above}{name}: {way}"
    for name, hint in hints.items():
        key = f"{above}{name}"
        if "_target_" in node and name not in node:
            continue  # the user's own object
        if name in node and hint.group is not None and OmegaConf.is_dict(node[name]):
            yield from _faults(config, hint.group, f"{key}.")
        elif (line := _fault(config, key, hint)) is not None:
            yield key, line


def _fault(config: DictConfig, key: str, hint: Hint) -> str | None:
    try:
        value = plain(config, key)
    except InterpolationToMissingValueError:
        return None  # such as ${dataset.raw}: the stage that needs it says so
    except OmegaConfBaseException as error:
        return f"{key}: {str(error).splitlines()[0]}"
    if fits(value, hint) or (isinstance(value, dict) and "_target_" in value):
        return None
    if value is None:
        return f"{key} is not set: expected {expected(hint)}"
    return f"{key}={value}: expected {expected(hint)}"
