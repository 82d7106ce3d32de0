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
"""Groups that may have other keys too: Hydra's groups, arguments of `pl.Trainer`, stages of plug-ins."""


def check_settings(config: DictConfig, stages: Sequence[str] = ()) -> None:
    """Checks all settings at once: types and ranges, and whether they fit each other, machine and disk.

    Args:
        config: The composed configuration.
        stages: The stages that will run.

    Raises:
        UserError: Some settings are wrong; the message has one line for each.
    """
    faults = dict(type_faults(config))
    lines = list(faults.values())
    try:
        lines += cross_faults(config, stages, tuple(faults))
    except (TypeError, ValueError, AttributeError, OmegaConfBaseException):
        if not lines:  # otherwise it was caused by a value of a wrong type, which has a line
            raise
    if lines:
        raise UserError("\n".join(dict.fromkeys(lines)))


def type_faults(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yields the addresses of settings of a wrong type or range, each with an error line."""
    yield from _faults(config, Settings, "")


def _faults(config: DictConfig, group: type, above: str) -> Iterator[tuple[str, str]]:
    node = OmegaConf.select(config, above.removesuffix(".")) if above else config
    hints = hints_of(group)
    if above not in OPEN and "_target_" not in node:
        for name in (str(name) for name in node if name not in hints and not str(name).startswith("_")):
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"did you mean {above}{near[0]}?" if near else f"known are {', '.join(hints)}"
            yield f"{above}{name}", f"unknown setting {above}{name}: {hint}"
    for name, expectation in hints.items():
        key = f"{above}{name}"
        if "_target_" in node and name not in node:
            continue  # an object of the user's
        if name in node and expectation.group is not None and OmegaConf.is_dict(node[name]):
            yield from _faults(config, expectation.group, f"{key}.")
        elif (line := _fault(config, key, expectation)) is not None:
            yield key, line


def _fault(config: DictConfig, key: str, hint: Hint) -> str | None:
    try:
        value = plain(config, key)
    except InterpolationToMissingValueError:
        return None  # e.g. ${dataset.raw}; the stage that needs it reports it
    except OmegaConfBaseException as error:
        return f"{key}: {str(error).splitlines()[0]}"
    if fits(value, hint) or (isinstance(value, dict) and "_target_" in value):
        return None
    if value is None:
        return f"{key} is not set: expected {expected(hint)}"
    return f"{key}={value}: expected {expected(hint)}"
