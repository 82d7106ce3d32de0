"""Mistakes of the user on the command line, each told in one line."""

import difflib
import shlex
import sys
from typing import Any, Final, NoReturn

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from ome.config.schema import Settings
from ome.config.schema.hints import addresses as settings_below
from ome.progress import console
from ome.scoring.spread import flatten

FIRST_GUESSES: Final = {
    "tile": "dataset.tile.size",
    "tile_size": "dataset.tile.size",
    "classes": "dataset.classes",
    "gpus": "trainer.devices",
    "model": "backbone",
    "encoder": "segmenter.encoder",
    "pretrained": "backbone.weights",
    "weights": "backbone.weights",
    "data": "dataset.raw",
    "images": "dataset.raw",
    "tags": "dataset.tags",
    "steps": "segmenter.recipe.steps",
    "seeds": "seed",
}
"""Addresses of what other tools call otherwise."""


def fail(line: str, status: int = 1) -> NoReturn:
    """Ends the process with one line that says why.

    Args:
        line: What is wrong, where, and what to type instead.
        status: The exit status.

    Raises:
        SystemExit: Always.
    """
    console.quiet = False  # where this is not the first process, which alone speaks otherwise
    console.print(f"[bold red]error:[/] {escape(line)}", highlight=False)
    sys.exit(status)


def _unknown_key(key: str, parent: Node) -> str:
    """Names the addresses that a mistyped or shortened key may stand for, else the keys beside it."""
    root: Any = parent._get_root()  # noqa: SLF001 - the one way from a node to its configuration
    siblings = [str(name) for name in parent]  # type: ignore[attr-defined]  # a container
    above, _, last = key.rpartition(".")
    if addresses := _addresses(root, above, last):
        return f"unknown setting {key}: type {' or '.join(addresses)}"
    if near := difflib.get_close_matches(last, siblings, n=1):
        return f"unknown setting {key}: did you mean {f'{above}.{near[0]}'.removeprefix('.')}?"
    if key in FIRST_GUESSES:
        return f"unknown setting {key}: type {FIRST_GUESSES[key]}"
    if key in {address for address, _ in settings_below(Settings)}:
        return f"unknown setting {key} in this configuration: add it by +{key}=..."
    names = {address.rpartition(".")[2] for address in _addresses(root, above)}
    if near := difflib.get_close_matches(last, sorted(names), n=1, cutoff=0.75):
        return f"unknown setting {key}: did you mean {' or '.join(_addresses(root, above, near[0]))}?"
    known = [name for name in siblings if name != "hydra"]
    return f"unknown setting {key}: known are {', '.join(known)}"


def _addresses(root: object, above: str, last: str = "") -> list[str]:
    """The addresses such as `stage.cam.lr` that end in a name; the selected stage's, if it has some."""
    plain: Any = OmegaConf.to_container(root, resolve=False)
    matches = [
        key
        for key in flatten(plain)
        if not key.startswith("hydra.") and key.endswith(f".{last}" if last else "")
    ]
    of_stage = [key for key in matches if last and key.startswith(f"stage.{plain['stage']['name']}.")]
    return of_stage or [key for key in matches if key.startswith("stage.") or above != "stage"] or matches


def explain(error: Exception) -> str:
    """Puts what Hydra and OmegaConf say about a wrong override into one line."""
    cause = error.__cause__
    if isinstance(error, OverrideParseException):
        return _unquoted(error.override)
    if isinstance(cause, OmegaConfBaseException) and cause.parent_node is not None:
        return _unknown_key(str(cause.full_key or cause.key), cause.parent_node)
    line = " ".join(str(error).split()).partition(" Config search path:")[0]
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        near = difflib.get_close_matches(option.lower(), error.options, n=1)
        hint = f"did you mean {group}={near[0]}? " if near else ""
        return f"unknown option {group}={option}: {hint}there are {', '.join(error.options)}"
    if "'hydra/sweeper" in line or "'hydra/launcher" in line:
        line += '; optuna, joblib and submitit come with pip install "ome[sweep]"'
    return line


def _unquoted(override: str) -> str:
    """How to type a setting that Hydra's grammar cannot read."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r} is not a setting: type KEY=VALUE, e.g. stage=cam"
    quote = '"' if "'" in value else "'"
    typed = f"{key}={quote}{value.strip(quote)}{quote}"
    typed = shlex.quote(typed) if set(typed) & set('"$`!\\') else f'"{typed}"'
    return f"cannot read {override}: its value needs quotes of its own, as in {typed}"


def null_group(error: Exception) -> str | None:
    """One line for a group of options that was given a value, which Hydra answers with a ValueError."""
    if not str(error).startswith("Config group override must be a string or a list."):
        return None
    return "a group of options such as callbacks= or experiment= takes a name: leave it out for none"
