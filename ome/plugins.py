"""Plug-ins: stages, networks and losses from other packages, by entry point or by `_target_` in a YAML."""

import logging
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from ome.errors import UserError, guess

STAGE_PLUGINS, SEGMENTER_PLUGINS, BACKBONE_PLUGINS = "ome.stages", "ome.segmenters", "ome.backbones"
"""Entry point groups of plug-ins."""


def name_of(node: Mapping[str, Any]) -> str:
    """The name of the object that a node of the configuration selects: its `_target_`, or else its `name`."""
    return str(node.get("_target_") or node["name"])


def import_targets(config: DictConfig) -> None:
    """Imports the `_target_` of `backbone` and `segmenter`, so that `find` can find them.

    Raises:
        UserError: See `imported`.
    """
    for group in ("backbone", "segmenter"):
        if target := config[group].get("_target_"):
            imported(target, f"{group}._target_")


def imported(target: str, key: str) -> Any:  # noqa: ANN401 - an object of any type
    """Imports the object at a dotted path.

    Args:
        target: A dotted path such as `thin.ThinNet`.
        key: The setting that contains it, for the error message.

    Raises:
        UserError: The module or the object cannot be imported.
    """
    logger = logging.getLogger("hydra.utils")
    logger.disabled = True  # it would print the error as well
    try:
        return get_object(target)
    except Exception as error:
        reason = " ".join(repr(error.__cause__ or error).split())
        raise UserError(
            f"{key}={target} cannot be imported ({reason}): is its folder on PYTHONPATH?"
        ) from error
    finally:
        logger.disabled = False


def is_plugin(name: str, group: str) -> bool:
    """Whether a name is the dotted path of an imported object or the name of an entry point."""
    return name.rpartition(".")[0] in sys.modules or name in entry_points(group=group).names


def find(name: str, known: Mapping[str, Any], group: str, what: str) -> Any:  # noqa: ANN401
    """Finds a stage, network or loss by its name.

    A dotted path alone is never imported: it may come from another person's run folder.

    Args:
        name: A name in `known`, the name of an entry point, or the dotted path of an imported object.
        known: The package's own objects, by name.
        group: The group of entry points.
        what: The kind of object for the error message, e.g. `segmenter`.

    Raises:
        UserError: The name is unknown.
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
    hint = guess(name, known, "; did you mean '{}'?", "")
    raise UserError(f"unknown {what} '{name}': choose one of {', '.join(known)}{hint}")
