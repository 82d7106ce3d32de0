"""Plug-ins: stages, networks and losses from other packages, by entry point or by `_target_` in a YAML.

Results depend on the code of plug-ins as they do on settings.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from hydra.utils import get_object
from omegaconf import DictConfig

from ome.errors import UserError, guess

STAGE_PLUGINS, SEGMENTER_PLUGINS, BACKBONE_PLUGINS = "ome.stages", "ome.segmenters", "ome.backbones"
"""Entry point groups of plug-ins."""

GROUPS: Final = (STAGE_PLUGINS, SEGMENTER_PLUGINS, BACKBONE_PLUGINS)

CODE: Final = "code"
"""Key of a manifest's configuration for the code of plug-ins, see `codes_in`."""

_LIBRARIES: Final = ("ome", "torch", "torchvision", "pytorch_lightning", "lightning")
"""Packages whose versions a manifest records, or whose objects only watch a training."""


def name_of(node: Mapping[str, Any]) -> str:
    """The name of the object that a node of the configuration selects: its `_target_`, or else its `name`."""
    return str(node.get("_target_") or node["name"])


def import_targets(config: DictConfig) -> None:
    """Imports the `_target_` of `backbone` and `segmenter`, so that `find` can find them.

    Raises:
        UserError: See `import_object`.
    """
    for group in ("backbone", "segmenter"):
        if target := config[group].get("_target_"):
            import_object(target, f"{group}._target_")


def import_object(target: str, key: str) -> Any:  # noqa: ANN401 - an object of any type
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
    return name.rpartition(".")[0] in sys.modules or name in _modules(tuple(sys.path), group)


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


def code_of(name: str) -> str | None:
    """The SHA-256 (first 16 digits) of the module, or of all modules of the package, that defines a plug-in.

    Nothing is imported, as a name may come from another person's run.

    Args:
        name: The dotted path of an object, or the name of an entry point of `ome`.

    Returns:
        The hash; None for what is not a plug-in, or cannot be found.
    """
    modules = [_modules(tuple(sys.path), group).get(name) for group in GROUPS]
    top, dot, _ = next(filter(None, modules), name).partition(".")
    if not top or top in _LIBRARIES or (not dot and name == top):
        return None
    try:
        spec = find_spec(top)
    except ValueError:  # of a module without one
        return None
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))] or [Path(spec.origin or "")]
    digest = hashlib.sha256()
    for path in filter(Path.is_file, files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _modules(path: tuple[str, ...], group: str) -> dict[str, str]:
    """The module of each entry point of a group, with a dot, by its name; they are read from `path`."""
    del path
    return {entry.name: f"{entry.module}." for entry in entry_points(group=group)}


def codes_in(settings: Mapping[str, Any]) -> dict[str, str]:
    """The code of every plug-in that settings name by `_target_` or by an entry point, by that name."""
    codes = {name: code_of(name) for name in sorted({*_names(settings)})}
    return {name: code for name, code in codes.items() if code is not None}


def _names(node: Any) -> Iterator[str]:  # noqa: ANN401 - nested settings
    if isinstance(node, Mapping):
        yield from (node[key] for key in ("_target_", "name") if isinstance(node.get(key), str))
    if isinstance(node, Mapping | list):
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from _names(value)
