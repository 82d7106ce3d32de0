"""Checks of a command line before Hydra parses it."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NoReturn, get_args, get_origin

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException

from ome.arguments import in_words
from ome.cli.help import groups
from ome.config.schema import Settings
from ome.config.schema.hints import addresses
from ome.errors import UserError, guess

_MAPPINGS: Final = tuple(
    f"{key}."
    for key, hint in addresses(Settings)
    if any(get_origin(option) is dict and get_args(option)[1] is not Any for option in hint.options)
)
"""Starts of the addresses of settings that map names of any kind, as those of classes, to values."""

_TEXTS: Final = frozenset(
    key for key, hint in addresses(Settings) if any(option in {str, list[str]} for option in hint.options)
)
"""Addresses of settings that take text, such as names of scenes."""

_NUMBER: Final = re.compile(
    r"((?:^|[\[,])\s*)([+-]?\.?\d[\d._]*(?:e[+-]?\d+)?)(?=\s*(?:$|[\],]))", re.IGNORECASE
)
"""A whole value, or a whole item of a list, that Hydra may read as a number, after what is before it.

A number within a text, as in `valley 2024`, is text already, and with quotes Hydra would refuse it.
"""


def is_setting(word: str) -> bool:
    """Whether a word of the command line is a setting such as `seed=1` or `~callbacks`, not an option."""
    return word.startswith("~") or ("=" in word and not word.startswith("-"))


def as_hydra_reads(words: Sequence[str]) -> list[str]:
    """The words of a command line in the form in which Hydra takes them as they are meant."""
    return [with_plus(with_text(with_home(word))) for word in words]


def with_home(word: str) -> str:
    """A setting with the home folder in place of `~` at the start of its value: shells leave it there."""
    match = re.fullmatch(r"([^=~]+=[\"']?)~(/.*)", word)
    return f"{match[1]}{Path.home()}{match[2]}" if match else word


def with_text(word: str) -> str:
    """A setting with quotes around what looks like a number but is text: Hydra would read 2_10 as 210."""
    key, equals, value = word.partition("=")
    if not equals or key.lstrip("+") not in _TEXTS or set(value) & set("\"'{"):  # a mapping may hold colours
        return word
    return key + equals + _NUMBER.sub(r"\1'\2'", value)


def with_plus(word: str) -> str:
    """A setting by which a free mapping such as `dataset.filter.overrides` gets a key, as Hydra spells it."""
    key, equals, _ = word.partition("=")
    return f"++{word}" if equals and key.startswith(_MAPPINGS) else word


def check_words(words: Sequence[str]) -> None:
    """Refuses what Hydra answers with its usage page or a traceback.

    Raises:
        UserError: An option is unknown or lacks its value, a group is given something else than a name, or
            Hydra would write into files before `ome.cli.command_log` checks them.
    """
    _check_groups(words)
    _check_hydra(words)
    parser = get_args_parser()
    known = parser._option_string_actions  # noqa: SLF001
    if words and words[-1] in {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"}:
        raise UserError(f"{words[-1]} takes a value: type it after the option")
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        option, equals, value = word.partition("=")
        if not option.startswith("-") or option in known:
            continue
        if not equals:
            is_value = following and not following.startswith("-") and "=" not in following
            value = following if is_value else "VALUE"
        key = option.lstrip("-").replace("-", "_") or "KEY"
        meant = guess(option, known)
        raise UserError(f"unknown option {option}{meant} settings have no dashes, type {key}={value}")

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{in_words(message)}: type python -m ome.run --hydra-help for Hydra's options")

    parser.error = refuse  # type: ignore[method-assign] # it prints a page
    parser.parse_args([word for word in words if word != "--version"])


def _check_hydra(words: Sequence[str]) -> None:
    for word in filter(is_setting, words):
        key = word.lstrip("+~").partition("=")[0]
        if key == "hydra" or word.startswith("~hydra."):
            raise UserError(f"{word}: settings of Hydra are set one by one: type hydra.NAME=VALUE")
        if key.startswith("hydra.hydra_logging") and "filename" in word:
            raise UserError(f"{word}: Hydra would write into a file before it is checked: omit it")
        if key == "hydra.callbacks" or key.startswith("hydra.callbacks.sweep"):
            raise UserError(f"{word}: ome checks and compares jobs by hydra.callbacks.sweep: omit it")


def _check_groups(words: Sequence[str]) -> None:
    """Refuses `crf=3`; a dictionary sets several settings of the group."""
    options, parser = groups(), OverridesParser.create()
    for word in words:
        key = word.partition("=")[0].lstrip("+")
        if key not in options or "=" not in word:
            continue
        try:
            value: Any = parser.parse_override(word).value()
        except HydraException:  # explained when Hydra parses it
            continue
        if isinstance(value, ChoiceSweep):
            value = value.list
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str | dict | QuotedString) for name in values):
            raise UserError(f"{word}: {key} takes the name of an option: {', '.join(options[key])}")
