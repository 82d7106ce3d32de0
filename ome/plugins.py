"""Stages, networks and losses from outside the package: by entry point, or by `_target_` in a YAML."""

import difflib
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from ome.errors import UserError

STAGES, SEGMENTERS, BACKBONES = "ome.stages", "ome.segmenters", "ome.backbones"
"""Groups of entry points."""


def name_of(node: Mapping[str, Any]) -> str:
    """What a part of the configuration selects: its `_target_`, or the name of something known."""
    return str(node.get("_target_") or node["name"])


def import_targets(config: DictConfig) -> None:
    """Imports what `backbone` and `segmenter` name by `_target_`, so that `find` finds it.

    Raises:
        UserError: See `imported`.
    """
    for group in ("backbone", "segmenter"):
        if target := config[group].get("_target_"):
            imported(target, f"{group}._target_")


def imported(target: str, key: str) -> Any:  # noqa: ANN401 - whatever it is
    """Imports the object at a dotted path.

    Args:
        target: Such as `thin.ThinNet`.
        key: The setting that has it, for the error.

    Raises:
        UserError: The module does not exist or object.
    """
    try:
        return get_object(target)
    except Exception as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{key}={target} cannot be imported ({line}): is its folder on PYTHONPATH?"
        ) from error


def is_plugin(name: str, group: str) -> bool:
    """Whether a name is a dotted path or an entry point's."""
    return name.rpartition(".")[0] in sys.modules or name in entry_points(group=group).names


def find(name: str, known: Mapping[str, Any], group: str, what: str) -> Any:  # noqa: ANN401
    """Finds something by its name.

    Nothing is imported by a dotted path alone, which may come from the folder of a run of somebody else's.

    Args:
        name: A known one's, an entry point's, or the dotted path of what was imported before.
        known: What the package brings itself.
        group: The group of entry points.
        what: For the error, e.g. `segmenter`.

    Raises:
        UserError: There is none of that name.
    """
    if name in known:
        return known[name]
    for entry in entry_points(group=group, name=name):
        return entry.load()
    module, _, attribute = name.rpartition(".")
    if module in sys.modules and hasattr(sys.modules[module], attribute):
        return getattr(sys.modules[module], attribute)
    if module:
        raise UserError(f"unknown {what} '{name}': import {module} first, or name it by {what}._target_")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise UserError(f"unknown {what} '{name}': choose one of {', '.join(known)}{hint}")
