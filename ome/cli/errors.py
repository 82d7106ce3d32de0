"""Turns user errors on the command line into one line each."""

import re
import sys
from contextlib import nullcontext
from typing import Final, NoReturn

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigTypeError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)
from rich.markup import escape
from yaml import MarkedYAMLError

from ome.config.unknown_settings import unknown_setting
from ome.errors import UserError, guess, one_line, shell_word
from ome.faults import disk_fault
from ome.plugins import STAGE_PLUGINS, is_plugin
from ome.progress import console


def fail(*lines: str, status: int = 1) -> NoReturn:
    """Ends the process with one line that says why.

    Args:
        *lines: What is wrong, where, and what to type instead; a line for each mistake.
        status: The exit status.

    Raises:
        SystemExit: Always.
    """
    console.quiet = False  # a rank other than 0 is quiet otherwise
    for place, line in enumerate(lines):
        console.print(f"{'' if place else '[bold red]error:[/] '}{escape(line)}")
    sys.exit(status)


def lines_for_user(error: Exception) -> list[str]:
    """The lines about an error that a user can mend, or that a machine made; none for a mistake of ours."""
    if isinstance(error, UserError):
        return [*error.args]
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error)
    return [*filter(None, [disk_fault(error) or _hydra_message(error)])]


def explain(error: Exception) -> list[str]:
    """Turns an error of Hydra or OmegaConf about a wrong override into one line, or one for each mistake."""
    if isinstance(root_cause := _first_cause(error), UserError):
        return [*root_cause.args]
    return [one_line(_reason(error))]


def _reason(error: Exception) -> str:
    cause = error.__cause__
    if ambiguous := re.match(r"Ambiguous value for argument '(.*)'\n", str(error)):
        return _several(ambiguous[1])
    if isinstance(error, OverrideParseException):
        return _unquoted(error.override)
    if isinstance(cause, ConfigTypeError | ValidationError):
        override = str(error).partition("Error merging override ")[2]
        value = f"{str(cause).splitlines()[0]}: type another value, or omit it"  # Hydra's settings have types
        # A list where there are settings.
        named = f"expected settings by name: type {cause.full_key}.NAME=VALUE"
        return f"{override}: {named if isinstance(cause, ConfigTypeError) else value}"
    if isinstance(cause, OmegaConfBaseException) and cause.parent_node is not None:
        key, typed = str(cause.full_key or cause.key), re.match(r"Could not override '([\w.]+)'", str(error))
        return unknown_setting(key, cause.parent_node, typed[1] if typed else key)
    return _in_files(error)


def _in_files(error: Exception) -> str:
    """Explains an error in the files of the configuration: no such option, or a reference to nothing."""
    if twice := re.search(r"Either remove \+ prefix: '(.*)'", str(error)):
        return f"{twice[1].partition('=')[0]} has a value already: type {twice[1]}, without +"
    if missing := re.search(r"Missing mandatory value: ([\w.]+)", str(error)):
        return f"{missing[1]} is not set: type {missing[1]}=..."
    if isinstance(error, InterpolationResolutionError):
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and (options := _options(error)):
        group, separator, option = error.missing_cfg_file.partition("//")  # an option such as /data/images
        if not separator:
            group, _, option = group.rpartition("/")
        hint = guess(option.lower(), options, f"did you mean {group}={{}}? ", "")
        if separator and group == "dataset":
            hint = f"for a folder of images type dataset=custom dataset.raw=/{option}; "
        if group == "stage" and is_plugin(option, STAGE_PLUGINS):
            hint = f"of a package, without a file: type stage.name={option}; "
        slash = "/" if separator else ""
        timm = "; encoder takes those of timm: backbone=encoder backbone.name=NAME"
        more = timm if group == "backbone" else ""
        return f"unknown option {group}={slash}{option}: {hint}there are {', '.join(options)}{more}"
    line = " ".join(str(error).split()).partition(" Config search path:")[0]
    if "'hydra/sweeper" in line or "'hydra/launcher" in line:
        line += '; optuna, joblib and submitit come with pip install "ome[sweep]"'
    if line.startswith("Additional config directory"):
        line += ": give --config-dir the folder that holds dataset/, backbone/ and so on"
    return line


def _options(error: MissingConfigException) -> list[str]:
    """The options of the group of a missing one; Hydra does not tell them if it is one of a list."""
    hydra, group = GlobalHydra.instance(), str(error.missing_cfg_file).rpartition("/")[0]
    if error.options or not group:
        return [*(error.options or ())]
    ready = hydra.is_initialized()
    with nullcontext() if ready else initialize_config_module("ome.conf", version_base="1.3"):
        return hydra.config_loader().get_group_options(group)


def _first_cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _unquoted(override: str) -> str:
    """Explains how to quote a setting that Hydra's grammar cannot parse."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r} is not a setting: type KEY=VALUE, e.g. stage=cam"
    return f"cannot parse {override}: put its value in quotes, as in {_quoted(key, value)}"


def _quoted(key: str, value: str) -> str:
    """A setting quoted for the shell and for Hydra, which then reads its value as a string."""
    quote = '"' if "'" in value else "'"
    setting = f"{key}={quote}{value.strip(quote)}{quote}"
    plain = setting.isprintable() and not set(setting) & set('"$`!\\')
    return f'"{setting}"' if plain else shell_word(setting)


def _several(override: str) -> str:
    """Explains the ways to type a setting whose value has a comma, without a sweep."""
    key, _, value = override.partition("=")
    number = re.fullmatch(r"([+-]?\d+),(\d+)", value)
    ways = [f"for a decimal type {key}={number[1]}.{number[2]}"] if number else []
    ways.append(f"for a sweep over the values add -m, for a list type '{key}=[{value}]'")
    if re.search(r"[^\W\d]", value):
        ways.append(f"for a text with a comma type {_quoted(key, value)}")
    return f"{override} has a comma: {', '.join(ways)}"


_OF_HYDRA: Final = {
    "Only one of --run, --multirun, --cfg": "--cfg and --info show the settings of one job: leave out -m",
    "The --resolve flag can only be used": "--resolve shows the values of settings: type --cfg job --resolve",
}
"""Our messages for ValueErrors of Hydra, by the start of Hydra's message."""


def _hydra_message(error: Exception) -> str | None:
    """Our message for a user error that Hydra reports as a ValueError or of a file; None for other errors."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1} is not YAML: {error.problem}"
    return next((line for start, line in _OF_HYDRA.items() if str(error).startswith(start)), None)
