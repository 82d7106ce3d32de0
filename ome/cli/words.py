"""Checks of a command line before Hydra parses it."""

import re
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser

from ome.errors import UserError


def check_words(words: Sequence[str]) -> None:
    """Refuses options that Hydra does not know, or that lack a value: it would print its usage page.

    Raises:
        UserError: An option is unknown, or lacks its value.
    """
    known = [name for action in get_args_parser()._actions for name in action.option_strings]  # noqa: SLF001
    if words and words[-1] in {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"}:
        raise UserError(f"{words[-1]} takes a value: type it behind the option")
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if not re.fullmatch(r"--\w[\w.-]*", option) or any(name.startswith(option) for name in known):
            continue
        if not equals:
            is_value = following and not following.startswith("-") and "=" not in following
            value = following if is_value else "VALUE"
        key = option.lstrip("-").replace("-", "_")
        raise UserError(f"unknown option {option}: settings have no dashes, type {key}={value}")
