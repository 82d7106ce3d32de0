"""The code of plug-ins: results depend on it as they do on settings."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ome.plugins import BACKBONE_PLUGINS, SEGMENTER_PLUGINS, STAGE_PLUGINS

CODE: Final = "code"
"""Key of a manifest's configuration for the code of plug-ins, see `codes_in`."""

_LIBRARIES: Final = ("ome", "torch", "torchvision", "pytorch_lightning", "lightning")
"""Packages whose versions a manifest records, or whose objects only watch a training."""


def code_of(name: str) -> str | None:
    """The SHA-256 (first 16 digits) of the module, or of all modules of the package, that defines a plug-in.

    Nothing is imported, as a name may come from another person's run.

    Args:
        name: The dotted path of an object, or the name of an entry point of `ome`.

    Returns:
        The hash; None for what is not a plug-in, or cannot be found.
    """
    top, dot, _ = _modules(tuple(sys.path)).get(name, name).partition(".")
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
def _modules(path: tuple[str, ...]) -> dict[str, str]:
    """The module of each entry point, with a dot, by its name; they are read from `path`, in 0.05 s."""
    del path
    groups = (STAGE_PLUGINS, SEGMENTER_PLUGINS, BACKBONE_PLUGINS)
    return {entry.name: f"{entry.module}." for group in groups for entry in entry_points(group=group)}


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
